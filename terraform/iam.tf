# Who may do what. Each function is a service account of its own; what can be
# granted on one resource is granted there, next to that resource, and only what
# BigQuery and Cloud SQL know for a whole project is granted here.
# README.md has the table of all of it, generated from the plan.

resource "google_service_account" "function" {
  for_each = local.functions

  project      = var.project
  account_id   = each.value.topic
  display_name = "Tidemark ${each.value.entry_point}"
  description  = each.value.description

  depends_on = [google_project_service.service]
}

# Pub/Sub calls the functions as this one.
resource "google_service_account" "push" {
  project      = var.project
  account_id   = "tidemark-push"
  display_name = "Tidemark push"
  description  = "Calls the functions on behalf of their subscriptions."

  depends_on = [google_project_service.service]
}

# Cloud Build builds the functions as this one.
resource "google_service_account" "build" {
  project      = var.project
  account_id   = "tidemark-build"
  display_name = "Tidemark build"
  description  = "Builds the functions from their archives."

  depends_on = [google_project_service.service]
}

locals {
  # Roles that BigQuery has for projects only: running jobs, reading sessions.
  function_project_roles = merge([
    for name, function in local.functions : {
      for role in function.project_roles : "${name} ${role}" => { function = name, role = role }
    }
  ]...)

  # Cloud SQL grants on the project, too; the condition narrows it to the instance.
  function_database_roles = merge([
    for name, function in local.functions : {
      for role in ["roles/cloudsql.client", "roles/cloudsql.instanceUser"] : "${name} ${role}" => { function = name, role = role }
    }
  ]...)
}

resource "google_project_iam_member" "function" {
  for_each = local.function_project_roles

  project = var.project
  role    = each.value.role
  member  = google_service_account.function[each.value.function].member
}

resource "google_project_iam_member" "function_database" {
  for_each = local.function_database_roles

  project = local.database_project
  role    = each.value.role
  member  = google_service_account.function[each.value.function].member

  condition {
    title       = "Tidemark's instance"
    description = "Connect and log in to ${local.connection_name}."
    expression  = "resource.service == \"sqladmin.googleapis.com\" && resource.name == \"projects/${local.database_project}/instances/${local.instance_name}\""
  }
}

# Pub/Sub's own agent signs the token that the subscriptions push with.
resource "google_service_account_iam_member" "push_token" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = local.pubsub_agent
}
