# Metrics made of the functions' log lines. The messages counted are those of
# shared/telemetry: a test in Go compares them.

locals {
  log_filter = join(" ", [
    "resource.type=\"cloud_run_revision\"",
    "resource.labels.service_name=(${join(" OR ", [for function in local.functions : "\"${function.topic}\""])})",
  ])

  # What is counted: lines, or, where a line has a number, its sum.
  log_metrics = {
    done     = { description = "Units of work that succeeded.", value = null, labels = ["kind", "pipeline", "cadence"] }
    failed   = { description = "Failures, by table or sync.", value = null, labels = ["kind", "pipeline", "tenant", "table", "class"] }
    stale    = { description = "Tables without success for three of their intervals.", value = null, labels = ["pipeline", "tenant", "table"] }
    rejected = { description = "Rows kept aside in tidemark.rejects.", value = "rows", labels = ["kind", "pipeline", "tenant", "table"] }
    billed   = { description = "Bytes that BigQuery processed.", value = "bytes", labels = ["kind", "pipeline"] }
    lag      = { description = "Replication slots found to hold back more than max_lag.", value = null, labels = ["pipeline", "slot"] }
  }
}

resource "google_logging_metric" "event" {
  for_each = local.log_metrics

  project         = var.project
  name            = "tidemark/${each.key}"
  description     = each.value.description
  filter          = "${local.log_filter} jsonPayload.message=\"${each.key}\""
  value_extractor = each.value.value == null ? null : "EXTRACT(jsonPayload.${each.value.value})"

  label_extractors = { for label in each.value.labels : label => "EXTRACT(jsonPayload.${label})" }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = each.value.value == null ? "INT64" : "DISTRIBUTION"
    unit        = each.value.value == "bytes" ? "By" : "1"

    dynamic "labels" {
      for_each = each.value.labels
      content {
        key        = labels.value
        value_type = "STRING"
      }
    }
  }

  dynamic "bucket_options" {
    for_each = each.value.value[*]
    content {
      exponential_buckets {
        growth_factor      = 4
        num_finite_buckets = 30
        scale              = 1
      }
    }
  }

  depends_on = [google_project_service.service]
}
