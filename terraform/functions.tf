# The functions, each described once; topics, subscriptions, schedules, accounts
# and alerts are made for every entry of local.functions.

locals {
  functions = {
    extract = {
      topic         = "tidemark-extract"
      entry_point   = "Extract"
      package       = "extract"
      description   = "Moves what changed in Postgres to BigQuery."
      memory        = "512Mi"
      cpu           = "1"
      max_instances = 4
      dataset_role  = "roles/bigquery.dataEditor"
      project_roles = ["roles/bigquery.jobUser", "roles/bigquery.readSessionUser"] # load jobs and MERGE; what a table has that the source has no more
    }
    dedup = {
      topic         = "tidemark-dedup"
      entry_point   = "Dedup"
      package       = "dedup"
      description   = "Removes superseded versions from the logs."
      memory        = "512Mi"
      cpu           = "1"
      max_instances = 2
      dataset_role  = "roles/bigquery.dataEditor"
      project_roles = ["roles/bigquery.jobUser"]
    }
    reverse-etl = {
      topic         = "tidemark-reverse-etl"
      entry_point   = "ReverseETL"
      package       = "reverseetl"
      description   = "Writes the results of BigQuery queries into Postgres."
      memory        = "512Mi"
      cpu           = "1"
      max_instances = 2
      dataset_role  = "roles/bigquery.dataViewer"
      project_roles = ["roles/bigquery.jobUser", "roles/bigquery.readSessionUser"]
    }
  }

  # What the deployment says of a function goes before what this file says.
  function_sizes = {
    for name, function in local.functions : name => {
      memory        = try(coalesce(var.functions[name].memory), function.memory)
      cpu           = try(coalesce(var.functions[name].cpu), function.cpu)
      max_instances = try(coalesce(var.functions[name].max_instances), function.max_instances)
      min_instances = try(coalesce(var.functions[name].min_instances), 0)
    }
  }

  # A push waits as long as its ack deadline, 600 s at most; a function gives up
  # a minute before, and begins no new work in the minute before that.
  ack_deadline_seconds     = 600
  function_timeout_seconds = 540

  # Each instance holds up to ten connections: six for data, four for the control
  # plane. It serves one message at a time, since a second would wait for them.
  connections_per_instance = 10
  connections              = sum([for size in local.function_sizes : size.max_instances * local.connections_per_instance])

  function_environment = {
    for name, function in local.functions : name => merge(
      {
        BIGQUERY_LOCATION         = var.location
        CLOUD_RUN_TIMEOUT_SECONDS = tostring(local.function_timeout_seconds) # the framework's deadline
        CLOUD_SQL_INSTANCE        = local.connection_name
        CLOUD_SQL_IP_TYPE         = var.database.ip_type
        DB_NAME                   = var.database.name
        DB_USER                   = local.database_users[name]
        GOOGLE_CLOUD_PROJECT      = var.project
        LOG_LEVEL                 = var.log_level
      },
      name == "extract" ? { TIDEMARK_STAGING_BUCKET = local.staging_bucket } : {},
    )
  }
}

resource "google_cloudfunctions2_function" "function" {
  for_each = local.functions

  project     = var.project
  location    = var.region
  name        = each.value.topic
  description = each.value.description
  labels      = local.labels

  build_config {
    runtime           = "go126"
    entry_point       = each.value.entry_point
    docker_repository = google_artifact_registry_repository.images.id
    service_account   = google_service_account.build.id

    source {
      storage_source {
        bucket = google_storage_bucket_object.source[each.key].bucket
        object = google_storage_bucket_object.source[each.key].name
      }
    }
  }

  service_config {
    available_cpu                    = local.function_sizes[each.key].cpu
    available_memory                 = local.function_sizes[each.key].memory
    environment_variables            = local.function_environment[each.key]
    ingress_settings                 = "ALLOW_INTERNAL_ONLY" # Pub/Sub of the same project is inside
    max_instance_count               = local.function_sizes[each.key].max_instances
    max_instance_request_concurrency = 1
    min_instance_count               = local.function_sizes[each.key].min_instances
    service_account_email            = google_service_account.function[each.key].email
    timeout_seconds                  = local.function_timeout_seconds

    dynamic "secret_environment_variables" {
      for_each = local.function_secrets[each.key]
      content {
        key        = secret_environment_variables.key
        project_id = secret_environment_variables.value.project
        secret     = secret_environment_variables.value.secret
        version    = secret_environment_variables.value.version
      }
    }

    direct_vpc_egress = var.network == null ? null : "VPC_EGRESS_PRIVATE_RANGES_ONLY"
    dynamic "direct_vpc_network_interface" {
      for_each = var.network[*]
      content {
        network    = direct_vpc_network_interface.value.network
        subnetwork = direct_vpc_network_interface.value.subnetwork
        tags       = direct_vpc_network_interface.value.tags
      }
    }
  }

  lifecycle {
    precondition {
      condition     = local.connections <= var.database.connections
      error_message = "The functions may open ${local.connections} connections (${local.connections_per_instance} per instance), and database.connections allows ${var.database.connections}: lower functions.<name>.max_instances, or raise database.connections if the server has room (see max_connections)."
    }
  }

  depends_on = [
    google_project_iam_member.function,
    google_project_iam_member.function_database,
    google_secret_manager_secret_iam_member.hash_key,
    google_sql_provision_script.grants,
    google_sql_user.function,
    google_storage_bucket_iam_member.csv,
    google_storage_bucket_iam_member.staging,
    time_sleep.build_roles,
  ]
}

# Pub/Sub, and nobody else, may call the functions.
resource "google_cloud_run_service_iam_member" "push" {
  for_each = local.functions

  project  = var.project
  location = var.region
  service  = google_cloudfunctions2_function.function[each.key].name
  role     = "roles/run.invoker"
  member   = google_service_account.push.member
}
