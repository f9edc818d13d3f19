# One page that answers: does it run, is it behind, what does it cost.

locals {
  charts = [
    { title = "Units of work that succeeded, by pipeline", query = "sum by (kind, pipeline) (increase(${local.promql.done}{monitored_resource=\"cloud_run_revision\"}[$${__interval}]))" },
    { title = "Failures, by table", query = "sum by (kind, pipeline, tenant, table, class) (increase(${local.promql.failed}{monitored_resource=\"cloud_run_revision\"}[$${__interval}]))" },
    { title = "Stale tables", query = "sum by (pipeline, tenant, table) (increase(${local.promql.stale}{monitored_resource=\"cloud_run_revision\"}[$${__interval}]))" },
    { title = "Rows rejected", query = "sum by (kind, pipeline, table) (increase(${local.promql.rejected}_sum{monitored_resource=\"cloud_run_revision\"}[$${__interval}]))" },
    { title = "Replication slots beyond max_lag", query = "sum by (pipeline, slot) (increase(${local.promql.lag}{monitored_resource=\"cloud_run_revision\"}[$${__interval}]))" },
    { title = "Bytes processed by BigQuery", query = "sum by (kind, pipeline) (increase(${local.promql.billed}_sum{monitored_resource=\"cloud_run_revision\"}[$${__interval}]))" },
    { title = "Age of the oldest message waiting, s", query = "max by (subscription_id) (pubsub_googleapis_com:subscription_oldest_unacked_message_age{monitored_resource=\"pubsub_subscription\",subscription_id=~\"tidemark-.*\"})" },
    { title = "Time of a message, s (95th percentile)", query = "histogram_quantile(0.95, sum by (le, service_name) (increase(run_googleapis_com:request_latencies_bucket{monitored_resource=\"cloud_run_revision\",service_name=~\"tidemark-.*\"}[$${__interval}]))) / 1000" },
    { title = "Instances", query = "sum by (service_name) (run_googleapis_com:container_instance_count{monitored_resource=\"cloud_run_revision\",service_name=~\"tidemark-.*\"})" },
    { title = "Connections to the database", query = "sum by (database_id) (cloudsql_googleapis_com:database_postgresql_num_backends{monitored_resource=\"cloudsql_database\",database_id=\"${local.database_project}:${local.instance_name}\"})" },
  ]
}

resource "google_monitoring_dashboard" "tidemark" {
  project = var.project
  dashboard_json = jsonencode({
    displayName = "Tidemark"
    labels      = { managed-by = "tidemark" }
    mosaicLayout = {
      columns = 48
      tiles = [
        for i, chart in local.charts : merge(
          i % 3 == 0 ? {} : { xPos = i % 3 * 16 }, # the API gives no zeros back
          i < 3 ? {} : { yPos = floor(i / 3) * 16 },
          {
            width  = 16
            height = 16
            widget = {
              title = chart.title
              xyChart = {
                dataSets = [{ plotType = "LINE", timeSeriesQuery = { prometheusQuery = chart.query } }]
              }
            }
          },
        )
      ]
    }
  })

  depends_on = [google_logging_metric.event]
}
