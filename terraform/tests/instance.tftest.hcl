# The Cloud SQL instance, where it is made here; what a destroy leaves; networks;
# tenants that are listed.

mock_provider "archive" {}
mock_provider "time" {}
mock_provider "google" {
  source = "./tests/google"
}

variables {
  project       = "test-project"
  region        = "europe-west1"
  location      = "EU"
  pipelines_dir = "tests/pipelines"
  hash_key      = "projects/test-project/secrets/tidemark-hash-key/versions/1"
  instance      = { name = "pg" }
  database      = { name = "app", grants = { deployer = "deploy@test-project.iam.gserviceaccount.com" } }
}

run "protected_and_recoverable" {
  command = plan

  assert {
    condition     = google_sql_database_instance.source[0].deletion_protection && google_sql_database_instance.source[0].settings[0].deletion_protection_enabled && google_sql_database_instance.source[0].deletion_policy == "ABANDON" && google_sql_database.source[0].deletion_policy == "ABANDON"
    error_message = "The instance or its database could be deleted."
  }
  assert {
    condition     = google_sql_database_instance.source[0].settings[0].backup_configuration[0].enabled && google_sql_database_instance.source[0].settings[0].backup_configuration[0].point_in_time_recovery_enabled && google_sql_database_instance.source[0].settings[0].availability_type == "REGIONAL"
    error_message = "The instance has no backups, no point-in-time recovery or no standby."
  }
  assert {
    condition     = { for flag in google_sql_database_instance.source[0].settings[0].database_flags : flag.name => flag.value } == { "cloudsql.iam_authentication" = "on" }
    error_message = "IAM login is off, or a flag is on that no pipeline needs."
  }
  assert {
    condition     = google_sql_database_instance.source[0].settings[0].edition == "ENTERPRISE" && google_sql_database_instance.source[0].settings[0].ip_configuration[0].ssl_mode == "ENCRYPTED_ONLY" && length(google_sql_database_instance.source[0].settings[0].ip_configuration[0].authorized_networks) == 0
    error_message = "The instance takes connections in clear, or from a network, or is of an edition that its tier is not of."
  }
  assert {
    condition     = google_sql_user.deployer[0].name == "deploy@test-project.iam" && google_sql_user.deployer[0].type == "CLOUD_IAM_SERVICE_ACCOUNT" && google_sql_database_instance.source[0].settings[0].data_api_access == "ALLOW_DATA_API"
    error_message = "Whoever runs terraform cannot run the grants."
  }
  assert {
    condition     = alltrue([for function in google_cloudfunctions2_function.function : function.service_config[0].environment_variables.CLOUD_SQL_INSTANCE == "test-project:europe-west1:pg"])
    error_message = "The functions log in to another instance than the one made here."
  }
  assert {
    condition     = google_bigquery_dataset.destination["shop"].deletion_policy == "ABANDON" && !google_bigquery_dataset.destination["shop"].delete_contents_on_destroy && alltrue([for user in google_sql_user.function : user.deletion_policy == "ABANDON"])
    error_message = "A destroy would delete a dataset, or fail on a user that owns tables."
  }
}

run "told_to_delete" {
  command = plan

  variables {
    keep_data = false
  }

  assert {
    condition     = !google_sql_database_instance.source[0].deletion_protection && !google_sql_database_instance.source[0].settings[0].deletion_protection_enabled && google_sql_database_instance.source[0].deletion_policy == "DELETE" && google_bigquery_dataset.destination["shop"].deletion_policy == "DELETE" && google_bigquery_dataset.destination["shop"].delete_contents_on_destroy
    error_message = "keep_data = false keeps data."
  }
}

run "private_address" {
  command = plan

  variables {
    database = { name = "app", ip_type = "PRIVATE", grants = { run = false } }
    network  = { network = "projects/host/global/networks/vpc", subnetwork = "projects/host/regions/europe-west1/subnetworks/functions", tags = ["tidemark"] }
  }

  assert {
    condition     = !google_sql_database_instance.source[0].settings[0].ip_configuration[0].ipv4_enabled && google_sql_database_instance.source[0].settings[0].ip_configuration[0].private_network == "projects/host/global/networks/vpc" && length(google_sql_database_instance.source[0].settings[0].ip_configuration[0].psc_config) == 0
    error_message = "The instance has a public address, or none in the network."
  }
  assert {
    condition     = alltrue([for function in google_cloudfunctions2_function.function : function.service_config[0].direct_vpc_egress == "VPC_EGRESS_PRIVATE_RANGES_ONLY" && function.service_config[0].direct_vpc_network_interface[0].subnetwork == "projects/host/regions/europe-west1/subnetworks/functions" && function.service_config[0].environment_variables.CLOUD_SQL_IP_TYPE == "PRIVATE"])
    error_message = "The functions do not go through the network, or dial another address."
  }
  assert {
    condition     = length(google_sql_provision_script.grants) == 0 && google_sql_database_instance.source[0].settings[0].data_api_access == "DISALLOW_DATA_API" && strcontains(output.database_grants, "tidemark-extract@test-project.iam")
    error_message = "The grants are run, or can be, though database.grants.run is false; or the output lacks them."
  }
}

run "private_service_connect" {
  command = plan

  variables {
    database = { name = "app", ip_type = "PSC", grants = { run = false } }
    network  = { network = "projects/host/global/networks/vpc", subnetwork = "projects/host/regions/europe-west1/subnetworks/functions" }
  }

  assert {
    condition     = one(google_sql_database_instance.source[0].settings[0].ip_configuration[0].psc_config).psc_enabled && one(google_sql_database_instance.source[0].settings[0].ip_configuration[0].psc_config).psc_auto_connections[0].consumer_network == "projects/host/global/networks/vpc" && !google_sql_database_instance.source[0].settings[0].ip_configuration[0].ipv4_enabled
    error_message = "The instance has no endpoint in the network, or a public address."
  }
  assert {
    condition     = alltrue([for function in google_cloudfunctions2_function.function : function.service_config[0].environment_variables.CLOUD_SQL_IP_TYPE == "PSC"]) && contains(keys(google_project_service.service), "networkconnectivity.googleapis.com")
    error_message = "The functions dial another address, or the API of the endpoints is off."
  }
}

run "listed_tenants" {
  command = plan

  variables {
    tenants = { crm = { "1" = { slug = "acme" }, "2" = { slug = "globex" } } }
  }

  assert {
    condition     = toset(keys(google_bigquery_dataset.destination)) == toset(["shop", "org_acme", "org_globex"])
    error_message = "A tenant has no dataset, or one of another name than the functions fill in."
  }
  assert {
    condition     = toset(keys(google_bigquery_dataset.ledger)) == toset(["shop_ledger", "org_acme_ledger", "org_globex_ledger"]) && length(google_bigquery_dataset_iam_member.ledger) == 3 && length(google_project_iam_member.create_ledgers) == 0
    error_message = "A tenant has no ledger of its own, or ReverseETL may make datasets though all are listed."
  }
  assert {
    condition     = length(google_project_iam_member.open_tenants) == 0 && length(google_project_iam_custom_role.create_datasets) == 0 && length([for grant in google_bigquery_dataset_iam_member.function : grant if grant.dataset_id == "org_acme"]) == 3
    error_message = "With its tenants listed a pipeline still has rights on datasets by name, or lacks those on its own."
  }
}

run "write_ahead_log" {
  command = plan

  variables {
    pipelines_dir = "tests/pipelines/wal"
    database      = { name = "app", grants = { deployer = "deploy@test-project.iam.gserviceaccount.com", reads = [{ table = "status_names" }] } }
  }

  assert {
    condition     = { for flag in google_sql_database_instance.source[0].settings[0].database_flags : flag.name => flag.value } == { "cloudsql.iam_authentication" = "on", "cloudsql.logical_decoding" = "on" }
    error_message = "A pipeline reads the write-ahead log, and the instance does not keep it."
  }
  assert {
    condition     = strcontains(google_monitoring_alert_policy.alert["lag"].conditions[0].condition_prometheus_query_language[0].query, "user_tidemark_lag{") && strcontains(google_monitoring_alert_policy.alert["lag"].documentation[0].content, "pg_replication_slots") && google_monitoring_alert_policy.alert["lag"].severity == "ERROR"
    error_message = "A slot could hold back the write-ahead log until the disk is full, and nobody would know what to do."
  }
  assert {
    condition = toset(jsondecode(regex("(?s)\\$json\\$\n(.*)\n\\$json\\$;", output.database_grants)[0]).tables) == toset([
      { schema = "public", table = "customers", trigger = false, wal = "wal" },
      { schema = "public", table = "order_items", trigger = true, wal = "" },
      { schema = "public", table = "invoices", trigger = false, wal = "" },
      { schema = "audit", table = "entries", trigger = false, wal = "" },
      { schema = "public", table = "admin_log", trigger = false, wal = "" },
      { schema = "public", table = "labels", trigger = true, wal = "" },
      { schema = "public", table = "orders", trigger = false, wal = "" },
      { schema = "public", table = "status_names", trigger = false, wal = "" },
    ])
    error_message = "Extract may not read, follow or put a trigger on what its pipelines capture, or may more."
  }
}

run "nothing_is_followed" {
  command = plan

  variables {
    pipelines_dir = "tests/pipelines/wal"
  }

  assert {
    condition     = length(google_logging_project_sink.jobs) + length(google_pubsub_topic_iam_member.jobs) + length(google_pubsub_topic_iam_member.scheduled_queries) + length(google_bigquery_dataset.ledger) + length(google_storage_bucket_iam_member.csv) == 0 && !contains(keys(google_project_service.service), "bigquerydatatransfer.googleapis.com")
    error_message = "ReverseETL is told of jobs, or has a ledger or a bucket, though no sync needs it."
  }
}

run "a_dataset_called_like_a_ledger" {
  command = plan

  variables {
    tenants = { crm = { "1" = { slug = "acme" }, "2" = { slug = "acme_ledger" } } }
  }

  expect_failures = [terraform_data.pipelines]
}

run "nothing_is_hashed" {
  command = plan

  variables {
    pipelines_dir = "tests/pipelines/wal"
  }

  assert {
    condition     = alltrue([for function in google_cloudfunctions2_function.function : length(function.service_config[0].secret_environment_variables) == 0]) && length(google_secret_manager_secret_iam_member.hash_key) == 0 && !contains(keys(google_project_service.service), "secretmanager.googleapis.com")
    error_message = "A function has the key, though no pipeline hashes."
  }
}

run "hashed_without_a_key" {
  command = plan

  variables {
    hash_key = null
  }

  expect_failures = [terraform_data.pipelines]
}

run "existing_instance" {
  command = plan

  variables {
    instance = null
    database = { name = "app", instance = "other-project:us-central1:main" }
  }

  assert {
    condition     = length(google_sql_database_instance.source) == 0 && length(google_sql_database.source) == 0 && length(google_sql_user.deployer) == 0 && google_sql_provision_script.grants[0].project == "other-project"
    error_message = "An instance that exists is made again, or the grants are run elsewhere."
  }
}

run "tenants_that_share_a_dataset" {
  command = plan

  variables {
    tenants = { crm = { "1" = { slug = "acme" }, "2" = { slug = "acme" } } }
  }

  expect_failures = [terraform_data.pipelines]
}

run "a_tenant_without_a_dataset" {
  command = plan

  variables {
    tenants = { crm = { "1" = { slug = "acme" }, "3" = { name = "initech" } } }
  }

  expect_failures = [terraform_data.pipelines]
}

run "tenants_found_at_run_time_among_other_datasets" {
  command = plan

  variables {
    pipelines_dir = "tests/pipelines/boundless"
  }

  expect_failures = [terraform_data.pipelines]
}
