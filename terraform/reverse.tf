# What only reverse syncs need besides the datasets they read: a dataset for their
# ledgers, and the buckets of their CSV files.

locals {
  ledger_pipelines = [
    for name, pipeline in local.pipelines : name
    if anytrue([for sync in try(pipeline.reverse_etl, []) : try(sync.changes, "") == "ledger"])
  ]
  ledgers = {
    for ledger, owners in { for d in local.all_datasets : "${d.dataset}_ledger" => d... if d.dataset != "" && contains(local.ledger_pipelines, d.pipeline) } :
    ledger => owners[0]
  }
  # A dataset of another kind would have its tables among the ledgers (I8).
  bad_ledgers = [for ledger in keys(local.ledgers) : ledger if contains(keys(local.datasets), ledger)]

  # A bucket whose name {dataset} is filled into cannot be told here.
  csv_buckets = toset(flatten([
    for pipeline in local.pipelines : [
      for sync in try(pipeline.reverse_etl, []) : try(regex("^gs://([^/{}]+)/", sync.csv), [])
    ]
  ]))
}

# Nothing here is data: a sync without its ledger compares every row once.
resource "google_bigquery_dataset" "ledger" {
  for_each = local.ledgers

  project                    = var.project
  location                   = var.location
  dataset_id                 = each.key
  description                = "What the reverse syncs of the Tidemark pipeline ${each.value.pipeline} have written${each.value.tenant == "" ? "" : ", tenant ${each.value.tenant}"}."
  labels                     = merge(local.labels, { tidemark-pipeline = each.value.pipeline })
  delete_contents_on_destroy = true

  depends_on = [google_project_service.service]
}

resource "google_bigquery_dataset_iam_member" "ledger" {
  for_each = local.ledgers

  project    = var.project
  dataset_id = google_bigquery_dataset.ledger[each.key].dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.function["reverse-etl"].member
}

# The ledgers of tenants that are found at run time: who makes a dataset owns it.
resource "google_project_iam_member" "create_ledgers" {
  count = length(setintersection(local.ledger_pipelines, keys(local.open_tenants))) > 0 ? 1 : 0

  project = var.project
  role    = google_project_iam_custom_role.create_datasets[0].name
  member  = google_service_account.function["reverse-etl"].member
}

resource "google_storage_bucket_iam_member" "csv" {
  for_each = local.csv_buckets

  bucket = each.key
  role   = "roles/storage.objectViewer"
  member = google_service_account.function["reverse-etl"].member
}
