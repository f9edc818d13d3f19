# The Cloud SQL instance, made here or already there, and the users that the
# functions log in as: by IAM, without a password.

locals {
  connection_name  = var.instance == null ? var.database.instance : "${var.project}:${var.region}:${var.instance.name}"
  database_project = var.instance == null ? split(":", var.database.instance)[0] : var.project
  instance_name    = var.instance == null ? split(":", var.database.instance)[2] : var.instance.name

  # The e-mail of the service account without .gserviceaccount.com, as Cloud SQL
  # wants it: a user's name ends at 63 characters.
  database_users = { for name, function in local.functions : name => "${function.topic}@${var.project}.iam" }

  # Reading the write-ahead log is a flag of the instance, and a restart.
  logical_decoding = anytrue(flatten([
    for pipeline in local.pipelines : [for table in try(pipeline.tables, []) : try(table.capture.method, "") == "wal"]
  ]))

  database_flags = merge(
    { "cloudsql.iam_authentication" = "on" },
    local.logical_decoding ? { "cloudsql.logical_decoding" = "on" } : {},
    try(var.instance.flags, {}),
  )
}

resource "google_sql_database_instance" "source" {
  count = var.instance == null ? 0 : 1

  project             = var.project
  region              = var.region
  name                = var.instance.name
  database_version    = var.instance.version
  deletion_protection = var.keep_data
  deletion_policy     = var.keep_data ? "ABANDON" : "DELETE"

  settings {
    edition                     = var.instance.edition
    tier                        = var.instance.tier
    availability_type           = var.instance.availability_type
    data_api_access             = var.database.grants.run ? "ALLOW_DATA_API" : "DISALLOW_DATA_API"
    deletion_protection_enabled = var.keep_data # against gcloud and the console, too
    disk_autoresize             = true
    disk_size                   = var.instance.disk_size_gb
    user_labels                 = local.labels

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7
      start_time                     = var.instance.backup_start
      backup_retention_settings {
        retained_backups = var.instance.retained_backups
      }
    }

    dynamic "database_flags" {
      for_each = local.database_flags
      content {
        name  = database_flags.key
        value = database_flags.value
      }
    }

    ip_configuration {
      ipv4_enabled    = var.database.ip_type == "PUBLIC" # without authorized networks: only connectors come in
      private_network = var.database.ip_type == "PRIVATE" ? var.network.network : null
      ssl_mode        = "ENCRYPTED_ONLY"

      dynamic "psc_config" {
        for_each = var.database.ip_type == "PSC" ? [var.network] : []
        content {
          psc_enabled                        = true
          psc_auto_connection_policy_enabled = true
          psc_auto_dns_enabled               = true
          allowed_consumer_projects          = [var.project]

          psc_auto_connections {
            consumer_network            = psc_config.value.network
            consumer_service_project_id = var.project
          }
        }
      }
    }

    insights_config {
      query_insights_enabled  = true
      record_application_tags = true
    }
  }

  lifecycle {
    ignore_changes = [settings[0].disk_size] # it grows by itself
  }

  depends_on = [google_project_service.service]
}

resource "google_sql_database" "source" {
  count = var.instance == null ? 0 : 1

  project         = var.project
  instance        = google_sql_database_instance.source[0].name
  name            = var.database.name
  deletion_policy = var.keep_data ? "ABANDON" : "DELETE"
}

# A role that owns things cannot be dropped, so a destroy leaves the users: they
# can do nothing without their service accounts.
resource "google_sql_user" "function" {
  for_each = local.functions

  project         = local.database_project
  instance        = try(google_sql_database_instance.source[0].name, local.instance_name)
  name            = local.database_users[each.key]
  type            = "CLOUD_IAM_SERVICE_ACCOUNT"
  deletion_policy = "ABANDON"

  depends_on = [google_service_account.function]
}

# Whoever runs terraform, where this makes the instance and the grants are run.
resource "google_sql_user" "deployer" {
  count = var.instance != null && var.database.grants.deployer != null ? 1 : 0

  project         = var.project
  instance        = google_sql_database_instance.source[0].name
  name            = trimsuffix(var.database.grants.deployer, ".gserviceaccount.com")
  type            = endswith(var.database.grants.deployer, ".gserviceaccount.com") ? "CLOUD_IAM_SERVICE_ACCOUNT" : "CLOUD_IAM_USER"
  database_roles  = ["cloudsqlsuperuser"]
  deletion_policy = "ABANDON"
}

locals {
  # Tenants are listed by each function; whatever else is read in the database, by Extract.
  lists_tenants = anytrue([for pipeline in local.pipelines : can(pipeline.tenants.query)])

  grants = templatefile("${path.module}/grants.sql.tftpl", {
    owner       = substr("tidemark_${var.database.name}", 0, 63) # roles are the whole server's
    users       = local.database_users
    tables      = concat(local.database_tables, local.lists_tenants ? [] : [for read in var.database.grants.reads : { schema = read.schema, table = read.table, trigger = false, wal = "" }])
    extra_reads = local.lists_tenants ? var.database.grants.reads : []
    targets     = local.database_targets
  })
}

# What the users may do in the database: SQL, run through Cloud SQL's Data API
# and again whenever the pipelines need something else.
resource "google_sql_provision_script" "grants" {
  count = var.database.grants.run ? 1 : 0

  project                 = local.database_project
  instance                = try(google_sql_database_instance.source[0].name, local.instance_name)
  database                = try(google_sql_database.source[0].name, var.database.name)
  description             = "Tidemark: the rights of the functions' users"
  script                  = local.grants
  user                    = var.database.grants.user
  password_secret_version = var.database.grants.password_secret_version

  depends_on = [google_sql_user.deployer, google_sql_user.function]
}
