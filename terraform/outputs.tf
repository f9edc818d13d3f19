output "alert_policies" {
  description = "Ids of the alert policies, by name."
  value       = { for name, policy in google_monitoring_alert_policy.alert : name => policy.id }
}

output "dashboard" {
  description = "Id of the dashboard."
  value       = google_monitoring_dashboard.tidemark.id
}

output "database_grants" {
  description = "The SQL that gives the functions' users their rights: run it yourself as an administrator of the database where database.grants.run is false."
  value       = local.grants
}

output "database_users" {
  description = "The users that the functions log in to Postgres as, by function."
  value       = local.database_users
}

output "datasets" {
  description = "Ids of the datasets made here."
  value       = concat(keys(google_bigquery_dataset.destination), keys(google_bigquery_dataset.ledger))
}

output "dead_letter_subscriptions" {
  description = "Ids of the subscriptions that keep what could not be delivered, by function."
  value       = { for name, subscription in google_pubsub_subscription.dead_letter : name => subscription.id }
}

output "functions" {
  description = "Ids of the functions."
  value       = { for name, function in google_cloudfunctions2_function.function : name => function.id }

  depends_on = [google_pubsub_subscription.push, google_cloud_run_service_iam_member.push]
}

output "instance" {
  description = "Connection name of the Cloud SQL instance, project:region:instance."
  value       = local.connection_name
}

output "notification_topic" {
  description = "The topic to set as the Pub/Sub notification of each scheduled query that a sync runs after."
  value       = google_pubsub_topic.tick["reverse-etl"].id
}

output "run_now" {
  description = "Commands that have each function do all its work now."
  value       = { for name, topic in google_pubsub_topic.tick : name => "gcloud pubsub topics publish ${topic.name} --project=${topic.project} --message='{}'" }
}

output "schedules" {
  description = "What is published when: schedule, time zone, topic and message of each job."
  value = {
    for name, schedule in local.schedules : google_cloud_scheduler_job.tick[name].name => {
      schedule  = schedule.schedule
      time_zone = schedule.time_zone
      topic     = google_pubsub_topic.tick[schedule.function].id
      message   = jsonencode(schedule.message)
    }
  }
}

output "service_accounts" {
  description = "E-mail addresses of the functions' service accounts."
  value       = { for name, account in google_service_account.function : name => account.email }
}
