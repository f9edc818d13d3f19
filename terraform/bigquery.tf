# The datasets, and what each function may do in them. Tables and views are made
# by the functions, from the source's catalogue.

locals {
  # The datasets of pipelines without tenants, and of the tenants that var.tenants
  # lists. A name that cannot be filled in is empty.
  pipeline_datasets = [for name, pipeline in local.pipelines : { dataset = pipeline.destination.dataset, pipeline = name, tenant = "" } if !can(pipeline.tenants)]
  tenant_datasets = flatten([
    for name, pipeline in local.pipelines : [
      for tenant, values in lookup(var.tenants, name, {}) : {
        dataset = try(join("", [
          for part in regexall("\\{[^}]*\\}|[^{]+", pipeline.tenants.dataset) : startswith(part, "{") ? values[trim(part, "{}")] : part
        ]), "")
        pipeline = name
        tenant   = tenant
      }
    ] if can(pipeline.tenants)
  ])
  all_datasets = concat(local.pipeline_datasets, local.tenant_datasets)
  datasets     = { for dataset, owners in { for d in local.all_datasets : d.dataset => d... if d.dataset != "" } : dataset => owners[0] }

  # I8: a tenant's dataset is its own.
  bad_tenants = [
    for d in local.tenant_datasets : "${d.pipeline}/${d.tenant} (${d.dataset})"
    if !can(regex("^[A-Za-z0-9_]{1,1000}$", d.dataset)) || length([for other in local.all_datasets : other if other.dataset == d.dataset]) > 1
  ]

  dataset_roles = merge([
    for dataset, owner in local.datasets : {
      for name, function in local.functions : "${dataset} ${name}" => { dataset = dataset, function = name, role = function.dataset_role }
    }
  ]...)

  # Pipelines whose tenants are found at run time: their datasets are known by how
  # their names begin, and made by Extract.
  open_tenants = {
    for name, pipeline in local.pipelines : name => split("{", pipeline.tenants.dataset)[0]
    if can(pipeline.tenants) && !contains(keys(var.tenants), name)
  }
  boundless = [
    for name, prefix in local.open_tenants : name
    if prefix == "" || anytrue([for dataset in concat(local.all_datasets[*].dataset, keys(local.ledgers)) : startswith(dataset, prefix)]) || anytrue([for other, p in local.open_tenants : startswith(p, prefix) if other != name])
  ]
  open_tenant_roles = merge([
    for name, prefix in local.open_tenants : {
      for function, config in local.functions : "${name} ${function}" => { prefix = prefix, function = function, role = config.dataset_role }
    }
  ]...)
}

resource "google_bigquery_dataset" "destination" {
  for_each = local.datasets

  project                    = var.project
  location                   = var.location
  dataset_id                 = each.key
  description                = "Tables of the Tidemark pipeline ${each.value.pipeline}${each.value.tenant == "" ? "" : ", tenant ${each.value.tenant}"}."
  labels                     = merge(local.labels, { tidemark-pipeline = each.value.pipeline })
  delete_contents_on_destroy = !var.keep_data
  deletion_policy            = var.keep_data ? "ABANDON" : "DELETE"

  depends_on = [google_project_service.service]
}

resource "google_bigquery_dataset_iam_member" "function" {
  for_each = local.dataset_roles

  project    = var.project
  dataset_id = google_bigquery_dataset.destination[each.value.dataset].dataset_id
  role       = each.value.role
  member     = google_service_account.function[each.value.function].member
}

# Further datasets that the queries of reverse_etl read.
resource "google_bigquery_dataset_iam_member" "reverse_etl_reads" {
  for_each = var.reverse_etl_reads

  project    = var.project
  dataset_id = each.key
  role       = "roles/bigquery.dataViewer"
  member     = google_service_account.function["reverse-etl"].member
}

resource "google_project_iam_custom_role" "create_datasets" {
  count = length(local.open_tenants) > 0 ? 1 : 0

  project     = var.project
  role_id     = "tidemarkCreateDatasets"
  title       = "Tidemark: create datasets"
  description = "Lets a function make the dataset of a tenant it sees for the first time."
  permissions = ["bigquery.datasets.create"]
}

resource "google_project_iam_member" "create_datasets" {
  count = length(local.open_tenants) > 0 ? 1 : 0

  project = var.project
  role    = google_project_iam_custom_role.create_datasets[0].name
  member  = google_service_account.function["extract"].member
}

resource "google_project_iam_member" "open_tenants" {
  for_each = local.open_tenant_roles

  project = var.project
  role    = each.value.role
  member  = google_service_account.function[each.value.function].member

  condition {
    title       = "Datasets ${each.value.prefix}*"
    description = "The datasets of tenants that are found at run time."
    expression  = "resource.service == \"bigquery.googleapis.com\" && resource.name.startsWith(\"projects/${var.project}/datasets/${each.value.prefix}\")"
  }
}
