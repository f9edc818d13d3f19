# The key that columns are hashed with. It is made by hand and outlives a destroy:
# with another one nothing that is hashed from then on would equal what was before.

locals {
  # Tables with hashed columns.
  hashed = flatten([
    for name, pipeline in local.pipelines : [
      for table in try(pipeline.tables, []) : "${name}.${table.name}" if length(try(table.columns.hash, [])) > 0
    ]
  ])

  hash_key = try(regex("^projects/(?P<project>[^/]+)/secrets/(?P<secret>[^/]+)/versions/(?P<version>[0-9]+)$", var.hash_key), null)

  # Variables that hold a secret, by function: Extract alone hashes, where a file says so.
  function_secrets = {
    for name, function in local.functions : name => {
      for variable, secret in { TIDEMARK_HASH_KEY = local.hash_key } : variable => secret
      if name == "extract" && length(local.hashed) > 0 && secret != null
    }
  }
}

resource "google_secret_manager_secret_iam_member" "hash_key" {
  for_each = local.function_secrets["extract"]

  project   = each.value.project
  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.function["extract"].member
}
