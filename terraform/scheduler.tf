# A job per function, cadence and time zone that the pipeline files name. Cloud
# Scheduler's own agent may publish to every topic of the project.

locals {
  schedules = merge([
    for name, function in local.functions : {
      for cadence, texts in {
        for text in distinct(flatten([for functions in values(local.declared_cadences) : functions[name]])) :
        local.canonical_cadence[text] => text...
        } : "${name}-${can(regex("^[0-9hms]+$", cadence)) ? cadence : "cron-${substr(sha1(cadence), 0, 8)}"}" => {
        function  = name
        message   = { cadence = cadence }
        time_zone = local.cadences[texts[0]].zone
        schedule  = local.crontab[texts[0]]
      }
    }
  ]...)

  # Cloud Scheduler's cron where the interval divides the hour or the day, else
  # its "every N minutes".
  minutes = { for text, cadence in local.cadences : text => cadence.seconds == null ? 0 : max(1, floor(cadence.seconds / 60)) }
  crontab = {
    for text, minutes in local.minutes : text => (
      local.cadences[text].seconds == null ? try(join(" ", local.cadences[text].fields), "") :
      minutes == 1 ? "* * * * *" :
      minutes < 60 && 60 % minutes == 0 ? "*/${minutes} * * * *" :
      minutes == 60 ? "0 * * * *" :
      minutes == 1440 ? "0 0 * * *" :
      minutes % 60 == 0 && 1440 % minutes == 0 ? "0 */${minutes / 60} * * *" :
      "every ${minutes} minutes"
    )
  }
}

resource "google_cloud_scheduler_job" "tick" {
  for_each = local.schedules

  project     = var.project
  region      = coalesce(var.scheduler_region, var.region)
  name        = "tidemark-${each.key}"
  description = "Tick of ${local.functions[each.value.function].entry_point}: ${each.value.message.cadence}"
  schedule    = each.value.schedule
  time_zone   = each.value.time_zone
  paused      = var.paused

  # A tick that is not published at once is worth two more attempts; after that
  # the next one does its work.
  retry_config {
    retry_count          = 2
    min_backoff_duration = "5s"
    max_backoff_duration = "20s"
  }

  pubsub_target {
    topic_name = google_pubsub_topic.tick[each.value.function].id
    data       = base64encode(jsonencode(each.value.message))
  }

  depends_on = [google_pubsub_subscription.push, terraform_data.pipelines]
}
