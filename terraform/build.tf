# Where the functions' sources are kept and their images built. Nothing here is
# data: all of it is made again by the next apply.

resource "google_storage_bucket" "source" {
  project                     = var.project
  name                        = "${var.project}-tidemark-source"
  location                    = var.region
  labels                      = local.labels
  force_destroy               = true
  public_access_prevention    = "enforced"
  uniform_bucket_level_access = true

  # An archive is read once, when its function is built, and another commit makes
  # it again.
  soft_delete_policy {
    retention_duration_seconds = 0
  }
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  depends_on = [google_project_service.service]
}

# The object is named by its content: the same code is the same object, and a
# function is deployed only when its own archive has changed.
resource "google_storage_bucket_object" "source" {
  for_each = local.functions

  bucket = google_storage_bucket.source.name
  name   = "${each.value.topic}/${data.archive_file.function[each.key].output_sha256}.zip"
  source = data.archive_file.function[each.key].output_path
}

resource "google_storage_bucket_iam_member" "build" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.build.member
}

# Cloud Functions hands Cloud Build a copy, in a bucket of its own making.
resource "google_project_iam_member" "build_copies" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.build.member

  condition {
    title       = "Copies of sources"
    description = "The buckets that Cloud Functions keeps the copies in."
    expression  = "resource.service == \"storage.googleapis.com\" && resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${data.google_project.this.number}-\")"
  }
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.region
  repository_id = "tidemark"
  description   = "Images of the Tidemark functions."
  format        = "DOCKER"
  labels        = local.labels

  cleanup_policies {
    id     = "keep-the-last-ones"
    action = "KEEP"
    most_recent_versions {
      keep_count = 5
    }
  }
  cleanup_policies {
    id     = "delete-the-others"
    action = "DELETE"
    condition {
      older_than = "2592000s" # 30 days
    }
  }

  depends_on = [google_project_service.service]
}

resource "google_artifact_registry_repository_iam_member" "build" {
  project    = var.project
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.repository_id
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.build.member
}

# Logs have no resource of their own to be granted on.
resource "google_project_iam_member" "build" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.build.member
}

# Roles take effect some time after they are granted, and a build that starts
# before fails.
resource "time_sleep" "build_roles" {
  create_duration = "60s"

  triggers = {
    bucket     = google_storage_bucket_iam_member.build.id
    copies     = google_project_iam_member.build_copies.id
    logs       = google_project_iam_member.build.id
    repository = google_artifact_registry_repository_iam_member.build.id
  }
}
