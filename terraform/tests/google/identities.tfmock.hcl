# What Google Cloud computes, where the provider checks its form.
mock_data "google_project" {
  defaults = {
    number = "123456789012"
  }
}

mock_resource "google_sql_database_instance" {
  defaults = {
    connection_name = "test-project:europe-west1:pg"
  }
}

mock_resource "google_service_account" {
  defaults = {
    email  = "tidemark@test-project.iam.gserviceaccount.com"
    member = "serviceAccount:tidemark@test-project.iam.gserviceaccount.com"
    name   = "projects/test-project/serviceAccounts/tidemark@test-project.iam.gserviceaccount.com"
    id     = "projects/test-project/serviceAccounts/tidemark@test-project.iam.gserviceaccount.com"
  }
}

mock_resource "google_logging_project_sink" {
  defaults = {
    writer_identity = "serviceAccount:service-123456789012@gcp-sa-logging.iam.gserviceaccount.com"
  }
}

mock_resource "google_project_iam_custom_role" {
  defaults = {
    name = "projects/test-project/roles/tidemarkCreateDatasets"
  }
}

mock_resource "google_cloudfunctions2_function" {
  defaults = {
    service_config = { uri = "https://function.example" }
  }
}
