# What tells ReverseETL that a job of BigQuery has ended, for the syncs that run
# after one: entries of the audit log for the tables they name, and notifications of
# the scheduled queries they name. Both come to the topic of its messages, and are
# told apart by their attributes.

locals {
  followed = flatten([
    for name, pipeline in local.pipelines : [
      for sync in try(pipeline.reverse_etl, []) : [
        for after in try(sync.after, []) : {
          # Of tenants, any dataset named like theirs: the function knows them.
          table = can(after.table) ? join("/", [
            "datasets",
            try(regex("^([^.]+)[.]", after.table)[0], !can(pipeline.tenants) ? pipeline.destination.dataset : join("", [
              for part in regexall("\\{[^}]*\\}|[^{]+", pipeline.tenants.dataset) : startswith(part, "{") ? "[A-Za-z0-9_]+" : part
            ])),
            "tables",
            # What a name may have and an expression reads otherwise; a star stands for the rest.
            replace(replace(replace(regex("[^.]+$", after.table), "+", "[+]"), "|", "[|]"), "/[*]$/", ".*"),
          ]) : null
          scheduled_query = try(after.scheduled_query, null)
        }
      ]
    ]
  ])
  followed_tables   = sort(distinct([for after in local.followed : after.table if after.table != null]))
  scheduled_queries = anytrue([for after in local.followed : after.scheduled_query != null])

  # The entry of a job that has ended, whatever became of it: a table is written by a
  # query, a load or a copy, and perhaps one partition of it. Tidemark's own jobs set
  # nothing off, or a sync could set off itself.
  job_prefix = "protoPayload.metadata.jobChange.job"
  job_filter = join("\n", [
    "logName=\"projects/${var.project}/logs/cloudaudit.googleapis.com%2Fdata_access\"",
    "protoPayload.serviceName=\"bigquery.googleapis.com\"",
    "${local.job_prefix}.jobStatus.jobState=\"DONE\"",
    "(${join(" OR ", [
      for config in ["queryConfig", "loadConfig", "tableCopyConfig"] :
      "${local.job_prefix}.jobConfig.${config}.destinationTable=~\"^projects/${var.project}/(${join("|", local.followed_tables)})([$].*)?$\""
    ])})",
    "NOT ${local.job_prefix}.jobConfig.labels.\"tidemark-pipeline\":*",
    "NOT ${local.job_prefix}.jobConfig.labels.\"tidemark-sync\":*",
    "NOT protoPayload.authenticationInfo.principalEmail=(${join(" OR ", [for function in local.functions : "\"${function.topic}@${var.project}.iam.gserviceaccount.com\""])})",
  ])
}

resource "google_logging_project_sink" "jobs" {
  count = length(local.followed_tables) > 0 ? 1 : 0

  project                = var.project
  name                   = "tidemark-jobs"
  description            = "Tells Tidemark which of the tables that its reverse syncs run after has been written."
  destination            = "pubsub.googleapis.com/${google_pubsub_topic.tick["reverse-etl"].id}"
  filter                 = local.job_filter
  unique_writer_identity = true

  lifecycle {
    precondition {
      condition     = length(local.job_filter) <= 20000
      error_message = "The filter of the log sink is longer than Cloud Logging takes, 20000 characters: name fewer tables under `after`, or have those syncs run after a scheduled query."
    }
  }
}

resource "google_pubsub_topic_iam_member" "jobs" {
  count = length(local.followed_tables) > 0 ? 1 : 0

  project = var.project
  topic   = google_pubsub_topic.tick["reverse-etl"].name
  role    = "roles/pubsub.publisher"
  member  = google_logging_project_sink.jobs[0].writer_identity
}

# The agent of BigQuery Data Transfer Service, which scheduled queries belong to.
resource "google_pubsub_topic_iam_member" "scheduled_queries" {
  count = local.scheduled_queries ? 1 : 0

  project = var.project
  topic   = google_pubsub_topic.tick["reverse-etl"].name
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-bigquerydatatransfer.iam.gserviceaccount.com"

  depends_on = [google_project_service.service]
}
