# What wakes somebody up. Each alert carries its playbook. They are PromQL, since
# only that may name a metric that has no data yet, and raises an alert for one
# that never had any.

locals {
  # A metric of metrics.tf, as PromQL spells it.
  promql = { for name in keys(local.log_metrics) : name => "logging_googleapis_com:user_tidemark_${name}" }

  alerts = merge(
    {
      failing = {
        title    = "Tidemark: failing"
        severity = "ERROR"
        duration = 0
        query    = <<-EOT
          sum by (kind, pipeline, tenant, table) (increase(${local.promql.failed}{monitored_resource="cloud_run_revision",class="permanent"}[10m])) > 0
          or
          sum by (kind, pipeline, tenant, table) (increase(${local.promql.failed}{monitored_resource="cloud_run_revision",class="transient"}[1h])) > 5
        EOT
      }
      stale = {
        title    = "Tidemark: a table is stale"
        severity = "ERROR"
        duration = 0
        query    = "sum by (pipeline, tenant, table) (increase(${local.promql.stale}{monitored_resource=\"cloud_run_revision\"}[10m])) > 0"
      }
      dead-letter = {
        title    = "Tidemark: messages were given up"
        severity = "ERROR"
        duration = 0
        query    = "max by (subscription_id) (pubsub_googleapis_com:subscription_num_undelivered_messages{monitored_resource=\"pubsub_subscription\",subscription_id=~\"${join("|", [for function in local.functions : "${function.topic}-dead-letter"])}\"}) > 0"
      }
      rejects = {
        title    = "Tidemark: rows were rejected"
        severity = "WARNING"
        duration = 0
        query    = "sum by (kind, pipeline, tenant, table) (increase(${local.promql.rejected}_sum{monitored_resource=\"cloud_run_revision\"}[1h])) > ${var.alerts.rejects}"
      }
      cost = {
        title    = "Tidemark: BigQuery processes more than expected"
        severity = "WARNING"
        duration = 0
        query    = "sum(increase(${local.promql.billed}_sum{monitored_resource=\"cloud_run_revision\"}[1d])) > ${var.alerts.billed_bytes}"
      }
    },
    local.logical_decoding ? {
      slot-lag = {
        title    = "Tidemark: the write-ahead log is held back"
        severity = "CRITICAL"
        duration = 600
        query    = "max by (database_id) (cloudsql_googleapis_com:database_disk_bytes_used_by_data_type{monitored_resource=\"cloudsql_database\",database_id=\"${local.database_project}:${local.instance_name}\",data_type=\"wal\"}) > ${var.alerts.slot_lag_bytes}"
      }
    } : {},
  )

  # I9: silence is an alarm. A third of the silence is waited for after the rest
  # has been seen, so that a new deployment has time for its first tick; Cloud
  # Monitoring waits a day at most.
  silences = {
    for key, heartbeat in local.heartbeats : key => merge(heartbeat, {
      duration = min(ceil(heartbeat.seconds / 180) * 60, 82800)
    })
  }

  playbooks = "${path.module}/playbooks"
}

resource "google_monitoring_alert_policy" "alert" {
  for_each = local.alerts

  project               = var.project
  display_name          = each.value.title
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = var.alerts.channels
  user_labels           = merge(local.labels, { playbook = each.key })

  conditions {
    display_name = each.value.title
    condition_prometheus_query_language {
      query                     = trimspace(each.value.query)
      duration                  = "${each.value.duration}s"
      evaluation_interval       = "60s"
      disable_metric_validation = true
    }
  }

  documentation {
    subject   = each.value.title
    content   = file("${local.playbooks}/${each.key}.md")
    mime_type = "text/markdown"
  }

  alert_strategy {
    auto_close = "604800s"
  }

  depends_on = [google_logging_metric.event]
}

resource "google_monitoring_alert_policy" "silent" {
  for_each = local.silences

  project               = var.project
  display_name          = "Tidemark: ${each.value.function} of ${each.value.pipeline} (${each.value.cadence}) is silent"
  combiner              = "OR"
  severity              = "ERROR"
  enabled               = !var.paused
  notification_channels = var.alerts.channels
  user_labels           = merge(local.labels, { playbook = "stale" })

  conditions {
    display_name = "No success for ${each.value.seconds} s"
    condition_prometheus_query_language {
      query                     = "absent_over_time(${local.promql.done}{monitored_resource=\"cloud_run_revision\",kind=\"${replace(each.value.function, "-", "_")}\",pipeline=\"${each.value.pipeline}\",cadence=\"${each.value.cadence}\"}[${each.value.seconds - each.value.duration}s])"
      duration                  = "${each.value.duration}s"
      evaluation_interval       = each.value.seconds > 3600 ? "300s" : "60s"
      disable_metric_validation = true
    }
  }

  documentation {
    subject   = "Tidemark: ${each.value.function} of ${each.value.pipeline} (${each.value.cadence}) is silent"
    content   = file("${local.playbooks}/stale.md")
    mime_type = "text/markdown"
  }

  alert_strategy {
    auto_close = "604800s"
  }

  depends_on = [google_logging_metric.event]
}
