# The APIs of Google Cloud that the deployment calls. They stay enabled when it is
# destroyed: others may use them.

locals {
  services = concat(
    [
      "artifactregistry.googleapis.com",
      "bigquery.googleapis.com",
      "bigquerystorage.googleapis.com",
      "cloudbuild.googleapis.com",
      "cloudfunctions.googleapis.com",
      "cloudresourcemanager.googleapis.com",
      "cloudscheduler.googleapis.com",
      "iam.googleapis.com",
      "logging.googleapis.com",
      "monitoring.googleapis.com",
      "pubsub.googleapis.com",
      "run.googleapis.com",
      "sqladmin.googleapis.com",
      "storage.googleapis.com",
    ],
    local.scheduled_queries ? ["bigquerydatatransfer.googleapis.com"] : [],
    var.network == null ? [] : ["compute.googleapis.com"],
    length(local.hashed) == 0 ? [] : ["secretmanager.googleapis.com"],
    var.database.ip_type == "PSC" ? ["networkconnectivity.googleapis.com"] : [],
  )
}

resource "google_project_service" "service" {
  for_each = toset(local.services)

  project            = var.project
  service            = each.key
  disable_on_destroy = false
}

# The number names the service agents of the project.
data "google_project" "this" {
  project_id = var.project
}
