# Applied and destroyed as a whole, in the order that the resources depend on one
# another, against a provider that only pretends.

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

run "everything" {
  assert {
    condition     = toset(keys(output.functions)) == toset(["extract", "dedup", "reverse-etl"]) && toset(output.datasets) == toset(["shop", "shop_ledger"]) && length(output.schedules) == 7 && length(output.alert_policies) == 5
    error_message = "Something is not deployed, or the outputs do not tell."
  }
  assert {
    condition     = output.run_now["dedup"] == "gcloud pubsub topics publish tidemark-dedup --project=test-project --message='{}'" && output.instance == "test-project:europe-west1:pg"
    error_message = "The outputs name another topic or instance."
  }
}
