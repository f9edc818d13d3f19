# Every validation refuses what it should: each run breaks several variables at
# once, each in one way. What the messages say is checked in Go, test/deployment.

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
  database = {
    name     = "app"
    instance = "test-project:europe-west1:pg"
  }
}

run "first" {
  command = plan

  variables {
    project   = "My Project"
    region    = "EU"
    location  = "europe"
    log_level = "loud"
    labels    = { Team = "data" }
    functions = { verify = {} }
    alerts    = { channels = ["me@example.com"] }
    database  = { name = "app", instance = "pg" }
  }

  expect_failures = [var.project, var.region, var.location, var.log_level, var.labels, var.functions, var.alerts, var.database]
}

run "second" {
  command = plan

  variables {
    labels    = { managed-by = "me" }
    functions = { extract = { memory = "512MB" } }
    alerts    = { billed_bytes = 0 }
    network   = { network = "default", subnetwork = "default" }
    instance  = { name = "PG" }
    database  = { name = "app", grants = { deployer = "me@example.com" } }
  }

  expect_failures = [var.labels, var.functions, var.alerts, var.network, var.instance]
}

run "third" {
  command = plan

  variables {
    functions = { extract = { max_instances = 0 } }
    instance  = { name = "pg", version = "POSTGRES_13" }
    database  = { name = "app", grants = { run = false } }
  }

  expect_failures = [var.functions, var.instance]
}

run "fourth" {
  command = plan

  variables {
    instance = { name = "pg", edition = "BUSINESS" }
    database = { name = "app", grants = { run = false } }
  }

  expect_failures = [var.instance]
}

run "fifth" {
  command = plan

  variables {
    instance = { name = "pg", availability_type = "HIGH" }
    database = { name = "app", grants = { run = false } }
  }

  expect_failures = [var.instance]
}

run "sixth" {
  command = plan

  variables {
    instance = { name = "pg", backup_start = "2am" }
    database = { name = "app", grants = { run = false } }
  }

  expect_failures = [var.instance]
}

run "seventh" {
  command = plan

  variables {
    instance = { name = "pg", flags = { "cloudsql.logical_decoding" = "on" } }
    database = { name = "app", grants = { run = false } }
  }

  expect_failures = [var.instance]
}

run "eighth" {
  command = plan

  variables {
    database = { name = "app", instance = "test-project:europe-west1:pg", grants = { user = "postgres" } }
  }

  expect_failures = [var.database]
}

run "ninth" {
  command = plan

  variables {
    database = { name = "app", instance = "test-project:europe-west1:pg", grants = { user = "postgres", password_secret_version = "projects/p/secrets/s/versions/1" } }
  }

  expect_failures = [var.database]
}

run "an_address_of_no_kind" {
  command = plan

  variables {
    database = { name = "app", instance = "test-project:europe-west1:pg", ip_type = "private" }
  }

  expect_failures = [var.database]
}

run "a_private_address_without_a_network" {
  command = plan

  variables {
    database = { name = "app", instance = "test-project:europe-west1:pg", ip_type = "PRIVATE" }
  }

  expect_failures = [var.database]
}

run "no_name_of_a_database" {
  command = plan

  variables {
    database = { name = "the app", instance = "test-project:europe-west1:pg" }
  }

  expect_failures = [var.database]
}

run "an_instance_made_and_another_named" {
  command = plan

  variables {
    instance = { name = "pg" }
    database = { name = "app", instance = "test-project:europe-west1:pg" }
  }

  expect_failures = [var.database]
}

run "a_new_instance_that_nobody_may_run_grants_in" {
  command = plan

  variables {
    instance = { name = "pg" }
    database = { name = "app" }
  }

  expect_failures = [var.database]
}

run "no_database" {
  command = plan

  variables {
    database = { name = "app" }
  }

  expect_failures = [var.database]
}

run "no_pipelines" {
  command = plan

  variables {
    pipelines_dir = "tests/google"
  }

  expect_failures = [terraform_data.pipelines]
}

run "cadences_that_cloud_scheduler_cannot_keep" {
  command = plan

  variables {
    pipelines_dir = "tests/pipelines/refused"
  }

  expect_failures = [terraform_data.pipelines]
}

run "a_slot_that_would_follow_tenants_or_a_query" {
  command = plan

  variables {
    pipelines_dir = "tests/pipelines/misplaced"
  }

  expect_failures = [terraform_data.pipelines]
}

run "tenants_of_a_pipeline_without_tenants" {
  command = plan

  variables {
    tenants = { shop = { acme = { slug = "acme" } } }
  }

  expect_failures = [terraform_data.pipelines]
}

run "more_connections_than_the_database_allows" {
  command = plan

  variables {
    functions = { extract = { max_instances = 5 } }
  }

  expect_failures = [google_cloudfunctions2_function.function["extract"], google_cloudfunctions2_function.function["dedup"], google_cloudfunctions2_function.function["reverse-etl"]]
}
