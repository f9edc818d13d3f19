# Where Extract lays down the files of its load jobs. Nothing here is data: each file
# is deleted when its job has ended, and what a run left that died goes by its age.

locals {
  staging_bucket = "${var.project}-tidemark-staging"
}

resource "google_storage_bucket" "staging" {
  project                     = var.project
  name                        = local.staging_bucket
  location                    = var.location # a load job reads where its dataset is
  labels                      = local.labels
  force_destroy               = true
  public_access_prevention    = "enforced"
  uniform_bucket_level_access = true

  # Deleted rows of the application are not to be found here a week later.
  soft_delete_policy {
    retention_duration_seconds = 0
  }
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = 3 # days; a load job ends within hours
    }
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

# Writing, reading and deleting files, and reading what the bucket is, which a load
# job does as whoever starts it. No role has both of them and less.
resource "google_storage_bucket_iam_member" "staging" {
  for_each = toset(["roles/storage.objectUser", "roles/storage.legacyBucketReader"])

  bucket = google_storage_bucket.staging.name
  role   = each.key
  member = google_service_account.function["extract"].member
}
