# A topic per function, and the subscription that pushes it to the function. The
# subscriptions are ours, not Eventarc's: only so can they have a dead-letter
# topic, 600 s to answer and no expiry.

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic" "tick" {
  for_each = local.functions

  project = var.project
  name    = each.value.topic
  labels  = local.labels

  depends_on = [google_project_service.service]
}

# A function sends itself the units and the continuations of its work.
resource "google_pubsub_topic_iam_member" "function" {
  for_each = local.functions

  project = var.project
  topic   = google_pubsub_topic.tick[each.key].name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.function[each.key].member
}

resource "google_pubsub_subscription" "push" {
  for_each = local.functions

  project = var.project
  name    = each.value.topic
  topic   = google_pubsub_topic.tick[each.key].id
  labels  = local.labels

  ack_deadline_seconds       = local.ack_deadline_seconds
  message_retention_duration = "86400s" # a day; an older tick is dropped anyway

  push_config {
    # The functions framework reads the topic of a push from the path.
    push_endpoint = "${google_cloudfunctions2_function.function[each.key].service_config[0].uri}/${google_pubsub_topic.tick[each.key].id}"

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = google_cloudfunctions2_function.function[each.key].service_config[0].uri
    }
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letter[each.key].id
    max_delivery_attempts = 15 # some two hours with that back-off
  }

  expiration_policy {
    ttl = "" # never
  }

  depends_on = [
    google_cloud_run_service_iam_member.push,
    google_service_account_iam_member.push_token,
  ]
}

resource "google_pubsub_topic" "dead_letter" {
  for_each = local.functions

  project = var.project
  name    = "${each.value.topic}-dead-letter"
  labels  = local.labels

  depends_on = [google_project_service.service]
}

# Without a subscription a dead letter would be lost.
resource "google_pubsub_subscription" "dead_letter" {
  for_each = local.functions

  project = var.project
  name    = "${each.value.topic}-dead-letter"
  topic   = google_pubsub_topic.dead_letter[each.key].id
  labels  = local.labels

  ack_deadline_seconds       = 60
  message_retention_duration = "604800s" # seven days, to read and to send again

  expiration_policy {
    ttl = "" # never
  }
}

# Pub/Sub's own agent moves the dead letters.
resource "google_pubsub_topic_iam_member" "dead_letter" {
  for_each = local.functions

  project = var.project
  topic   = google_pubsub_topic.dead_letter[each.key].name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "dead_letter" {
  for_each = local.functions

  project      = var.project
  subscription = google_pubsub_subscription.push[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}
