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
