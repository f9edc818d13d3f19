# What wakes somebody up. Each alert carries its playbook. They are PromQL, since
# only that may name a metric that has no data yet, and raises an alert for one
# that never had any.

locals {
  # A metric of metrics.tf, as PromQL spells it.
  promql = { for name in keys(local.log_metrics) : name => "logging_googleapis_com:user_tidemark_${name}" }

  # Where no pipeline has a replication slot, none can lag.
  alerts = { for name, alert in local.possible_alerts : name => alert if name != "lag" || local.logical_decoding }

  possible_alerts = {
    failing = {
      title    = "Tidemark: failing"
      severity = "ERROR"
      query    = <<-EOT
        sum by (kind, pipeline, tenant, table) (increase(${local.promql.failed}{monitored_resource="cloud_run_revision",class="permanent"}[10m])) > 0
        or
        sum by (kind, pipeline, tenant, table) (increase(${local.promql.failed}{monitored_resource="cloud_run_revision",class="transient"}[1h])) > 5
      EOT
    }
    stale = {
      title    = "Tidemark: a table is stale"
      severity = "ERROR"
      query    = "sum by (pipeline, tenant, table) (increase(${local.promql.stale}{monitored_resource=\"cloud_run_revision\"}[10m])) > 0"
    }
    dead-letter = {
      title    = "Tidemark: messages were given up"
      severity = "ERROR"
      query    = "max by (subscription_id) (pubsub_googleapis_com:subscription_num_undelivered_messages{monitored_resource=\"pubsub_subscription\",subscription_id=~\"${join("|", [for function in local.functions : "${function.topic}-dead-letter"])}\"}) > 0"
    }
    rejects = {
      title    = "Tidemark: rows were rejected"
      severity = "WARNING"
      query    = "sum by (kind, pipeline, tenant, table) (increase(${local.promql.rejected}_sum{monitored_resource=\"cloud_run_revision\"}[1h])) > ${var.alerts.rejects}"
    }
    lag = {
      title    = "Tidemark: a replication slot holds back too much"
      severity = "ERROR"
      query    = "sum by (pipeline, slot) (increase(${local.promql.lag}{monitored_resource=\"cloud_run_revision\"}[10m])) > 0"
    }
    cost = {
      title    = "Tidemark: BigQuery processes more than expected"
      severity = "WARNING"
      query    = "sum(increase(${local.promql.billed}_sum{monitored_resource=\"cloud_run_revision\"}[1d])) > ${var.alerts.billed_bytes}"
    }
  }

  # I9: silence is an alarm after three ticks that did not come, and after ten minutes
  # at least, as pipeline.Cadence.Overdue has it for tables; after two days at most.
  # Part of the time is looked back on, 25 hours at most, and the rest waited for, 23
  # hours at most; it is longer than a tick takes to come and to be served, so that a new
  # deployment raises no alarm before its first one.
  silences = {
    for key, heartbeat in local.heartbeats : key => merge(heartbeat, {
      seconds = min(max(3 * heartbeat.gap, 600), 172800)
      waited  = min(max(heartbeat.gap + 300, min(max(3 * heartbeat.gap, 600), 172800) - 90000), 82800)
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
      duration                  = "0s"
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
      query                     = "absent_over_time(${local.promql.done}{monitored_resource=\"cloud_run_revision\",kind=\"${replace(each.value.function, "-", "_")}\",pipeline=\"${each.value.pipeline}\",cadence=\"${each.value.cadence}\"}[${each.value.seconds - each.value.waited}s])"
      duration                  = "${each.value.waited}s"
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

  # Last of all: what is not scheduled yet is not silent.
  depends_on = [google_logging_metric.event, google_cloud_scheduler_job.tick]
}
