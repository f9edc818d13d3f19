# The examples, planned as they stand.

mock_provider "archive" {}
mock_provider "time" {}
mock_provider "google" {
  source = "./tests/google"
}

run "smallest" {
  command = plan

  module {
    source = "./examples/smallest"
  }

  variables {
    project  = "test-project"
    instance = "test-project:europe-west1:main"
    database = "app"
  }

  assert {
    condition     = strcontains(output.run_now["extract"], "gcloud pubsub topics publish tidemark-extract")
    error_message = "The example does not say how to run it now."
  }
}

run "full" {
  command = plan

  module {
    source = "./examples/full"
  }

  variables {
    project  = "test-project"
    email    = "oncall@example.com"
    deployer = "me@example.com"
  }

  assert {
    condition     = output.instance == "test-project:europe-west1:shop"
    error_message = "The instance has another name than the functions are told."
  }
}

run "multi_tenant" {
  command = plan

  module {
    source = "./examples/multi-tenant"
  }

  variables {
    instance = "crm-app:europe-west1:main"
    network  = { network = "projects/crm-network/global/networks/shared", subnetwork = "projects/crm-network/regions/europe-west1/subnetworks/functions" }
    deployments = {
      eu = { project = "crm-data-eu", location = "EU", tenants = { "1" = { slug = "acme" }, "7" = { slug = "globex" } } }
      us = { project = "crm-data-us", location = "US", tenants = { "3" = { slug = "initech" } } }
    }
  }

  assert {
    condition     = output.datasets == { eu = ["org_acme", "org_globex"], us = ["org_initech"] }
    error_message = "A tenant has no dataset, or one in another project than its own (I8)."
  }
}
