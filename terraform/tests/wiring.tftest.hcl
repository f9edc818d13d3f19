# What is connected to what, as planned. The ids that Google Cloud would give
# are given here, a different one to each, so that a mix-up shows.

mock_provider "archive" {
  override_during = plan
}

mock_provider "time" {}

mock_provider "google" {
  override_during = plan
  source          = "./tests/google"
}

variables {
  project           = "test-project"
  region            = "europe-west1"
  location          = "EU"
  pipelines_dir     = "tests/pipelines"
  hash_key          = "projects/vault-project/secrets/hash-key/versions/3"
  reverse_etl_reads = ["marketing"]
  alerts            = { channels = ["projects/test-project/notificationChannels/1"] }
  database = {
    name     = "app"
    instance = "data-project:europe-west1:pg"
  }
}

override_resource {
  override_during = plan
  target          = google_service_account.function["extract"]
  values = {
    email  = "tidemark-extract@test-project.iam.gserviceaccount.com"
    member = "serviceAccount:tidemark-extract@test-project.iam.gserviceaccount.com"
    name   = "projects/test-project/serviceAccounts/tidemark-extract@test-project.iam.gserviceaccount.com"
    id     = "projects/test-project/serviceAccounts/tidemark-extract@test-project.iam.gserviceaccount.com"
  }
}

override_resource {
  override_during = plan
  target          = google_service_account.function["dedup"]
  values = {
    email  = "tidemark-dedup@test-project.iam.gserviceaccount.com"
    member = "serviceAccount:tidemark-dedup@test-project.iam.gserviceaccount.com"
    name   = "projects/test-project/serviceAccounts/tidemark-dedup@test-project.iam.gserviceaccount.com"
    id     = "projects/test-project/serviceAccounts/tidemark-dedup@test-project.iam.gserviceaccount.com"
  }
}

override_resource {
  override_during = plan
  target          = google_service_account.function["reverse-etl"]
  values = {
    email  = "tidemark-reverse-etl@test-project.iam.gserviceaccount.com"
    member = "serviceAccount:tidemark-reverse-etl@test-project.iam.gserviceaccount.com"
    name   = "projects/test-project/serviceAccounts/tidemark-reverse-etl@test-project.iam.gserviceaccount.com"
    id     = "projects/test-project/serviceAccounts/tidemark-reverse-etl@test-project.iam.gserviceaccount.com"
  }
}

override_resource {
  override_during = plan
  target          = google_service_account.push
  values = {
    email  = "tidemark-push@test-project.iam.gserviceaccount.com"
    member = "serviceAccount:tidemark-push@test-project.iam.gserviceaccount.com"
    name   = "projects/test-project/serviceAccounts/tidemark-push@test-project.iam.gserviceaccount.com"
    id     = "projects/test-project/serviceAccounts/tidemark-push@test-project.iam.gserviceaccount.com"
  }
}

override_resource {
  override_during = plan
  target          = google_service_account.build
  values = {
    email  = "tidemark-build@test-project.iam.gserviceaccount.com"
    member = "serviceAccount:tidemark-build@test-project.iam.gserviceaccount.com"
    name   = "projects/test-project/serviceAccounts/tidemark-build@test-project.iam.gserviceaccount.com"
    id     = "projects/test-project/serviceAccounts/tidemark-build@test-project.iam.gserviceaccount.com"
  }
}

override_resource {
  override_during = plan
  target          = google_pubsub_topic.tick["extract"]
  values          = { id = "projects/test-project/topics/tidemark-extract" }
}

override_resource {
  override_during = plan
  target          = google_pubsub_topic.dead_letter["extract"]
  values          = { id = "projects/test-project/topics/tidemark-extract-dead-letter" }
}

override_resource {
  override_during = plan
  target          = google_cloudfunctions2_function.function["extract"]
  values          = { service_config = { uri = "https://extract.example" } }
}

override_data {
  override_during = plan
  target          = data.archive_file.function["extract"]
  values          = { output_sha256 = "hash-of-extract" }
}

override_resource {
  override_during = plan
  target          = google_pubsub_topic.tick["dedup"]
  values          = { id = "projects/test-project/topics/tidemark-dedup" }
}

override_resource {
  override_during = plan
  target          = google_pubsub_topic.dead_letter["dedup"]
  values          = { id = "projects/test-project/topics/tidemark-dedup-dead-letter" }
}

override_resource {
  override_during = plan
  target          = google_cloudfunctions2_function.function["dedup"]
  values          = { service_config = { uri = "https://dedup.example" } }
}

override_data {
  override_during = plan
  target          = data.archive_file.function["dedup"]
  values          = { output_sha256 = "hash-of-dedup" }
}

override_resource {
  override_during = plan
  target          = google_pubsub_topic.tick["reverse-etl"]
  values          = { id = "projects/test-project/topics/tidemark-reverse-etl" }
}

override_resource {
  override_during = plan
  target          = google_pubsub_topic.dead_letter["reverse-etl"]
  values          = { id = "projects/test-project/topics/tidemark-reverse-etl-dead-letter" }
}

override_resource {
  override_during = plan
  target          = google_cloudfunctions2_function.function["reverse-etl"]
  values          = { service_config = { uri = "https://reverse-etl.example" } }
}

override_data {
  override_during = plan
  target          = data.archive_file.function["reverse-etl"]
  values          = { output_sha256 = "hash-of-reverse-etl" }
}

run "functions" {
  command = plan

  assert {
    condition = { for name, function in google_cloudfunctions2_function.function : name => "${function.name} ${function.build_config[0].entry_point} ${function.build_config[0].runtime}" } == {
      extract     = "tidemark-extract Extract go126"
      dedup       = "tidemark-dedup Dedup go126"
      reverse-etl = "tidemark-reverse-etl ReverseETL go126"
    }
    error_message = "A function has another name, entry point or runtime."
  }
  assert {
    condition     = alltrue([for name, function in google_cloudfunctions2_function.function : function.build_config[0].source[0].storage_source[0].object == "tidemark-${name}/hash-of-${name}.zip" && endswith(google_storage_bucket_object.source[name].source, "/${name}.zip")])
    error_message = "A function is built from another one's archive, or from one not named by its content."
  }
  assert {
    condition     = alltrue([for name, function in google_cloudfunctions2_function.function : function.service_config[0].service_account_email == "tidemark-${name}@test-project.iam.gserviceaccount.com"])
    error_message = "A function runs as another one's account."
  }
  assert {
    condition     = alltrue([for function in google_cloudfunctions2_function.function : function.build_config[0].service_account == google_service_account.build.id])
    error_message = "A function is not built by the build account."
  }
  assert {
    condition = alltrue([
      for name, function in google_cloudfunctions2_function.function : function.service_config[0].environment_variables == tomap(merge({
        BIGQUERY_LOCATION         = "EU"
        CLOUD_RUN_TIMEOUT_SECONDS = "540"
        CLOUD_SQL_INSTANCE        = "data-project:europe-west1:pg"
        CLOUD_SQL_IP_TYPE         = "PUBLIC"
        DB_NAME                   = "app"
        DB_USER                   = "tidemark-${name}@test-project.iam"
        GOOGLE_CLOUD_PROJECT      = "test-project"
        LOG_LEVEL                 = "info"
      }, name == "extract" ? { TIDEMARK_STAGING_BUCKET = google_storage_bucket.staging.name } : {}))
    ])
    error_message = "A function's environment is not the one it reads."
  }
  assert {
    condition = { for name, function in google_cloudfunctions2_function.function : name => [
      for secret in function.service_config[0].secret_environment_variables : "${secret.key} ${secret.project_id} ${secret.secret} ${secret.version}"
      ] if length(function.service_config[0].secret_environment_variables) > 0 } == {
      extract = ["TIDEMARK_HASH_KEY vault-project hash-key 3"]
    }
    error_message = "Extract has no key to hash with, or another function has it."
  }
  assert {
    condition     = alltrue([for function in google_cloudfunctions2_function.function : function.service_config[0].timeout_seconds == tonumber(function.service_config[0].environment_variables.CLOUD_RUN_TIMEOUT_SECONDS) && function.service_config[0].timeout_seconds < 600])
    error_message = "The function's timeout, its deadline and the ack deadline disagree."
  }
  assert {
    condition     = alltrue([for function in google_cloudfunctions2_function.function : function.service_config[0].max_instance_request_concurrency == 1 && function.service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"])
    error_message = "An instance serves several messages at once, or the whole internet."
  }
  assert {
    condition     = alltrue([for function in google_cloudfunctions2_function.function : length(function.service_config[0].direct_vpc_network_interface) == 0])
    error_message = "A function goes through a network nobody named."
  }
}

run "staging" {
  command = plan

  assert {
    condition     = google_storage_bucket.staging.location == "EU" && google_storage_bucket.staging.public_access_prevention == "enforced" && google_storage_bucket.staging.uniform_bucket_level_access && google_storage_bucket.staging.force_destroy
    error_message = "The files of load jobs are where BigQuery does not read them, or where others do, or keep a destroy from ending."
  }
  assert {
    condition     = google_storage_bucket.staging.soft_delete_policy[0].retention_duration_seconds == 0 && one([for rule in google_storage_bucket.staging.lifecycle_rule : one(rule.condition).age if one(rule.action).type == "Delete"]) == 3
    error_message = "What a run left that died stays for ever, or comes back after it was deleted."
  }
  assert {
    condition     = contains(keys(google_project_service.service), "secretmanager.googleapis.com") && contains(keys(google_project_service.service), "storage.googleapis.com")
    error_message = "An API is off that the files or the key need."
  }
}

run "topics" {
  command = plan

  assert {
    condition     = { for name, subscription in google_pubsub_subscription.push : name => "${subscription.topic} ${subscription.push_config[0].push_endpoint}" } == { for name in ["extract", "dedup", "reverse-etl"] : name => "projects/test-project/topics/tidemark-${name} https://${name}.example/projects/test-project/topics/tidemark-${name}" }
    error_message = "A topic is pushed to a function that does not read it, or without the topic in the path."
  }
  assert {
    condition     = alltrue([for name, subscription in google_pubsub_subscription.push : subscription.push_config[0].oidc_token[0].audience == "https://${name}.example" && subscription.push_config[0].oidc_token[0].service_account_email == google_service_account.push.email])
    error_message = "A push has a token for another function, or of another account."
  }
  assert {
    condition     = alltrue([for subscription in google_pubsub_subscription.push : subscription.ack_deadline_seconds == 600 && subscription.expiration_policy[0].ttl == "" && subscription.retry_policy[0].minimum_backoff == "10s" && subscription.retry_policy[0].maximum_backoff == "600s"])
    error_message = "A subscription expires, does not wait for the function, or does not back off."
  }
  assert {
    condition     = alltrue([for name, subscription in google_pubsub_subscription.push : subscription.dead_letter_policy[0].dead_letter_topic == "projects/test-project/topics/tidemark-${name}-dead-letter"])
    error_message = "A dead letter goes to another function's topic."
  }
  assert {
    condition     = { for name, subscription in google_pubsub_subscription.dead_letter : name => subscription.topic if subscription.expiration_policy[0].ttl == "" } == { for name in ["extract", "dedup", "reverse-etl"] : name => "projects/test-project/topics/tidemark-${name}-dead-letter" }
    error_message = "A dead-letter topic has no lasting subscription: what is sent there would be lost."
  }
}

# Syncs run after jobs: those of the tables they name and of no others, and not of
# Tidemark's own.
run "notifications" {
  command = plan

  assert {
    condition     = "${google_logging_project_sink.jobs[0].project} ${google_logging_project_sink.jobs[0].destination} ${google_logging_project_sink.jobs[0].unique_writer_identity}" == "test-project pubsub.googleapis.com/projects/test-project/topics/tidemark-reverse-etl true" && output.notification_topic == "projects/test-project/topics/tidemark-reverse-etl"
    error_message = "The end of a job is told to another topic than ReverseETL reads, or by an account that others share."
  }
  assert {
    condition     = "${google_logging_project_sink.jobs[0].filter}\n" == <<-EOT
      logName="projects/test-project/logs/cloudaudit.googleapis.com%2Fdata_access"
      protoPayload.serviceName="bigquery.googleapis.com"
      protoPayload.metadata.jobChange.job.jobStatus.jobState="DONE"
      (protoPayload.metadata.jobChange.job.jobConfig.queryConfig.destinationTable=~"^projects/test-project/(datasets/marketing/tables/segments|datasets/org_[A-Za-z0-9_]+/tables/scores|datasets/shop/tables/members|datasets/shop/tables/scores)([$].*)?$" OR protoPayload.metadata.jobChange.job.jobConfig.loadConfig.destinationTable=~"^projects/test-project/(datasets/marketing/tables/segments|datasets/org_[A-Za-z0-9_]+/tables/scores|datasets/shop/tables/members|datasets/shop/tables/scores)([$].*)?$" OR protoPayload.metadata.jobChange.job.jobConfig.tableCopyConfig.destinationTable=~"^projects/test-project/(datasets/marketing/tables/segments|datasets/org_[A-Za-z0-9_]+/tables/scores|datasets/shop/tables/members|datasets/shop/tables/scores)([$].*)?$")
      NOT protoPayload.metadata.jobChange.job.jobConfig.labels."tidemark-pipeline":*
      NOT protoPayload.metadata.jobChange.job.jobConfig.labels."tidemark-sync":*
      NOT protoPayload.authenticationInfo.principalEmail=("tidemark-dedup@test-project.iam.gserviceaccount.com" OR "tidemark-extract@test-project.iam.gserviceaccount.com" OR "tidemark-reverse-etl@test-project.iam.gserviceaccount.com")
    EOT
    error_message = "ReverseETL is told of other jobs than those that its syncs run after, or of Tidemark's own."
  }
  assert {
    condition     = contains(keys(google_project_service.service), "bigquerydatatransfer.googleapis.com")
    error_message = "The API of scheduled queries is off, though a sync runs after one."
  }
}

run "schedules" {
  command = plan

  assert {
    condition = { for name, job in google_cloud_scheduler_job.tick : job.name => "${job.schedule} | ${job.time_zone} | ${job.pubsub_target[0].topic_name} | ${base64decode(job.pubsub_target[0].data)}" } == {
      tidemark-extract-1m            = "* * * * * | Etc/UTC | projects/test-project/topics/tidemark-extract | {\"cadence\":\"1m\"}"
      tidemark-extract-5m            = "*/5 * * * * | Etc/UTC | projects/test-project/topics/tidemark-extract | {\"cadence\":\"5m\"}"
      tidemark-extract-cron-178ddfbe = "0 0 * * * | Etc/UTC | projects/test-project/topics/tidemark-extract | {\"cadence\":\"0 0 * * *\"}"
      tidemark-extract-cron-6f93fd95 = "0 6 * * 1 | Europe/Berlin | projects/test-project/topics/tidemark-extract | {\"cadence\":\"CRON_TZ=Europe/Berlin 0 6 * * 1\"}"
      tidemark-dedup-1h30m           = "every 90 minutes | Etc/UTC | projects/test-project/topics/tidemark-dedup | {\"cadence\":\"1h30m\"}"
      tidemark-reverse-etl-15m       = "*/15 * * * * | Etc/UTC | projects/test-project/topics/tidemark-reverse-etl | {\"cadence\":\"15m\"}"
      tidemark-reverse-etl-24h       = "0 0 * * * | Etc/UTC | projects/test-project/topics/tidemark-reverse-etl | {\"cadence\":\"24h\"}"
    }
    error_message = "A schedule is missing, is one too many, or publishes something else than its cadence to its function."
  }
  assert {
    condition     = alltrue([for job in google_cloud_scheduler_job.tick : !job.paused])
    error_message = "A schedule is paused."
  }
}

# Everything that anybody is granted: one more is as wrong as one less.
run "roles" {
  command = plan

  assert {
    condition = toset([for grant in google_project_iam_member.function : "${grant.project} ${grant.role} ${grant.member}"]) == toset([
      "test-project roles/bigquery.jobUser serviceAccount:tidemark-extract@test-project.iam.gserviceaccount.com",
      "test-project roles/bigquery.jobUser serviceAccount:tidemark-dedup@test-project.iam.gserviceaccount.com",
      "test-project roles/bigquery.jobUser serviceAccount:tidemark-reverse-etl@test-project.iam.gserviceaccount.com",
      "test-project roles/bigquery.readSessionUser serviceAccount:tidemark-extract@test-project.iam.gserviceaccount.com",
      "test-project roles/bigquery.readSessionUser serviceAccount:tidemark-reverse-etl@test-project.iam.gserviceaccount.com",
    ])
    error_message = "The functions have other roles on the project than they need."
  }
  assert {
    condition = toset([for grant in google_project_iam_member.function_database : "${grant.project} ${grant.role} ${grant.member}"]) == toset(flatten([
      for name in ["extract", "dedup", "reverse-etl"] : [
        for role in ["roles/cloudsql.client", "roles/cloudsql.instanceUser"] : "data-project ${role} serviceAccount:tidemark-${name}@test-project.iam.gserviceaccount.com"
      ]
    ]))
    error_message = "The functions have other roles for Cloud SQL than they need, or in another project than the instance's."
  }
  assert {
    condition     = alltrue([for grant in google_project_iam_member.function_database : strcontains(grant.condition[0].expression, "resource.name == \"projects/data-project/instances/pg\"")])
    error_message = "A function may log in to other instances."
  }
  assert {
    condition = toset([for grant in google_bigquery_dataset_iam_member.function : "${grant.dataset_id} ${grant.role} ${grant.member}"]) == toset([
      "shop roles/bigquery.dataEditor serviceAccount:tidemark-extract@test-project.iam.gserviceaccount.com",
      "shop roles/bigquery.dataEditor serviceAccount:tidemark-dedup@test-project.iam.gserviceaccount.com",
      "shop roles/bigquery.dataViewer serviceAccount:tidemark-reverse-etl@test-project.iam.gserviceaccount.com",
    ])
    error_message = "The functions have other roles in the dataset than they need."
  }
  assert {
    condition     = { for name, grant in google_bigquery_dataset_iam_member.reverse_etl_reads : name => "${grant.dataset_id} ${grant.role} ${grant.member}" } == { marketing = "marketing roles/bigquery.dataViewer serviceAccount:tidemark-reverse-etl@test-project.iam.gserviceaccount.com" }
    error_message = "The datasets that reverse queries read are not granted to ReverseETL alone."
  }
  assert {
    condition     = keys(google_bigquery_dataset.ledger) == ["shop_ledger"] && google_bigquery_dataset.ledger["shop_ledger"].location == "EU" && [for grant in google_bigquery_dataset_iam_member.ledger : "${grant.dataset_id} ${grant.role} ${grant.member}"] == ["shop_ledger roles/bigquery.dataEditor serviceAccount:tidemark-reverse-etl@test-project.iam.gserviceaccount.com"]
    error_message = "ReverseETL has no ledger beside the data, or may write elsewhere, or others may."
  }
  assert {
    condition     = [for grant in google_storage_bucket_iam_member.csv : "${grant.bucket} ${grant.role} ${grant.member}"] == ["imports roles/storage.objectViewer serviceAccount:tidemark-reverse-etl@test-project.iam.gserviceaccount.com"]
    error_message = "ReverseETL cannot read its CSV files, or may do more, or others may."
  }
  assert {
    condition     = "${google_pubsub_topic_iam_member.jobs[0].topic} ${google_pubsub_topic_iam_member.jobs[0].role} ${google_pubsub_topic_iam_member.jobs[0].member}" == "tidemark-reverse-etl roles/pubsub.publisher serviceAccount:service-123456789012@gcp-sa-logging.iam.gserviceaccount.com"
    error_message = "The log sink may not publish to the topic of ReverseETL, or may publish elsewhere."
  }
  assert {
    condition     = "${google_pubsub_topic_iam_member.scheduled_queries[0].topic} ${google_pubsub_topic_iam_member.scheduled_queries[0].role} ${google_pubsub_topic_iam_member.scheduled_queries[0].member}" == "tidemark-reverse-etl roles/pubsub.publisher serviceAccount:service-123456789012@gcp-sa-bigquerydatatransfer.iam.gserviceaccount.com"
    error_message = "Scheduled queries may not publish to the topic of ReverseETL, or may publish elsewhere."
  }
  assert {
    condition     = { for name, grant in google_cloud_run_service_iam_member.push : name => "${grant.service} ${grant.role} ${grant.member}" } == { for name in ["extract", "dedup", "reverse-etl"] : name => "tidemark-${name} roles/run.invoker serviceAccount:tidemark-push@test-project.iam.gserviceaccount.com" }
    error_message = "Somebody else than Pub/Sub may call a function, or Pub/Sub may not."
  }
  assert {
    condition     = { for name, grant in google_pubsub_topic_iam_member.function : name => "${grant.topic} ${grant.role} ${grant.member}" } == { for name in ["extract", "dedup", "reverse-etl"] : name => "tidemark-${name} roles/pubsub.publisher serviceAccount:tidemark-${name}@test-project.iam.gserviceaccount.com" }
    error_message = "A function may publish elsewhere than to its own topic, or not even there."
  }
  assert {
    condition = toset(concat(
      [for grant in google_pubsub_topic_iam_member.dead_letter : "${grant.topic} ${grant.role} ${grant.member}"],
      [for grant in google_pubsub_subscription_iam_member.dead_letter : "${grant.subscription} ${grant.role} ${grant.member}"],
      )) == toset(flatten([for name in ["extract", "dedup", "reverse-etl"] : [
        "tidemark-${name}-dead-letter roles/pubsub.publisher serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com",
        "tidemark-${name} roles/pubsub.subscriber serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com",
    ]]))
    error_message = "Pub/Sub cannot move dead letters."
  }
  assert {
    condition     = google_service_account_iam_member.push_token.role == "roles/iam.serviceAccountOpenIdTokenCreator" && google_service_account_iam_member.push_token.service_account_id == google_service_account.push.name && google_service_account_iam_member.push_token.member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    error_message = "Pub/Sub cannot sign the token of its pushes."
  }
  assert {
    condition     = "${google_storage_bucket_iam_member.build.role} ${google_artifact_registry_repository_iam_member.build.role} ${google_project_iam_member.build.role}" == "roles/storage.objectViewer roles/artifactregistry.writer roles/logging.logWriter" && alltrue([for grant in [google_storage_bucket_iam_member.build.member, google_project_iam_member.build_copies.member, google_artifact_registry_repository_iam_member.build.member, google_project_iam_member.build.member] : grant == google_service_account.build.member])
    error_message = "The build account has other roles than it needs."
  }
  assert {
    condition     = google_project_iam_member.build_copies.role == "roles/storage.objectViewer" && strcontains(google_project_iam_member.build_copies.condition[0].expression, "startsWith(\"projects/_/buckets/gcf-v2-sources-123456789012-\")")
    error_message = "The build account cannot read what it is to build, or reads other buckets."
  }
  assert {
    condition = toset([for grant in google_storage_bucket_iam_member.staging : "${grant.bucket} ${grant.role} ${grant.member}"]) == toset([
      "test-project-tidemark-staging roles/storage.objectUser serviceAccount:tidemark-extract@test-project.iam.gserviceaccount.com",
      "test-project-tidemark-staging roles/storage.legacyBucketReader serviceAccount:tidemark-extract@test-project.iam.gserviceaccount.com",
    ])
    error_message = "Extract cannot lay down, load and delete files, or may do so elsewhere, or others may."
  }
  assert {
    condition     = [for grant in google_secret_manager_secret_iam_member.hash_key : "${grant.project} ${grant.secret_id} ${grant.role} ${grant.member}"] == ["vault-project hash-key roles/secretmanager.secretAccessor serviceAccount:tidemark-extract@test-project.iam.gserviceaccount.com"]
    error_message = "Extract cannot read the key, or reads other secrets, or others read it."
  }
  # crm's tenants are found at run time: by the beginning of their datasets' names.
  assert {
    condition     = alltrue([for grant in google_project_iam_member.open_tenants : strcontains(grant.condition[0].expression, "startsWith(\"projects/test-project/datasets/org_\")")]) && length(google_project_iam_member.open_tenants) == 3
    error_message = "The functions may use other datasets than those of the tenants."
  }
  assert {
    condition     = tolist(google_project_iam_custom_role.create_datasets[0].permissions) == tolist(["bigquery.datasets.create"]) && google_project_iam_member.create_datasets[0].member == google_service_account.function["extract"].member
    error_message = "Extract cannot make the dataset of a new tenant, or may do more."
  }
  assert {
    condition     = google_project_iam_member.create_ledgers[0].role == google_project_iam_custom_role.create_datasets[0].name && google_project_iam_member.create_ledgers[0].member == google_service_account.function["reverse-etl"].member
    error_message = "ReverseETL cannot make the ledger of a new tenant, or may do more."
  }
}

run "database" {
  command = plan

  assert {
    condition     = length(google_sql_database_instance.source) == 0 && { for name, user in google_sql_user.function : name => "${user.project} ${user.instance} ${user.name} ${user.type}" } == { for name in ["extract", "dedup", "reverse-etl"] : name => "data-project pg tidemark-${name}@test-project.iam CLOUD_IAM_SERVICE_ACCOUNT" }
    error_message = "A function's account is no user of the database."
  }
  assert {
    condition     = alltrue([for name, user in google_sql_user.function : "${user.name}.gserviceaccount.com" == google_service_account.function[name].email && user.name == google_cloudfunctions2_function.function[name].service_config[0].environment_variables.DB_USER])
    error_message = "A database user, its service account and DB_USER disagree."
  }
  assert {
    condition     = "${google_sql_provision_script.grants[0].project} ${google_sql_provision_script.grants[0].instance} ${google_sql_provision_script.grants[0].database}" == "data-project pg app" && google_sql_provision_script.grants[0].script == output.database_grants
    error_message = "The grants are run in another database, or are others than the output says."
  }
  assert {
    condition     = alltrue([for name in ["orders", "customers", "countries", "contacts", "notes", "segments"] : strcontains(google_sql_provision_script.grants[0].script, name)])
    error_message = "The grants leave out a table."
  }
  assert {
    condition = [for target in jsondecode(regex("(?s)\\$json\\$\n(.*)\n\\$json\\$;", output.database_grants)[0]).targets : "${target.table} ${join(",", [for right in ["insert", "update", "delete", "where", "many"] : right if target[right]])} ${target.deleted}"] == [
      "contacts update ",
      "customers update ",
      "segments insert,update ",
      "segments update ",
      "members insert,update,where gone",
      "discounts insert,update,delete ",
      "customers update,many ",
      "referrals insert ",
    ]
    error_message = "ReverseETL may not write a table as its syncs do, or may more."
  }
}

run "alerts" {
  command = plan

  assert {
    condition     = toset(keys(google_monitoring_alert_policy.alert)) == toset(["failing", "stale", "dead-letter", "rejects", "cost"])
    error_message = "An alert is missing, or one too many."
  }
  assert {
    condition = toset(keys(google_monitoring_alert_policy.silent)) == toset([
      "extract/shop/1m", "extract/shop/5m", "dedup/shop/1h30m", "reverse-etl/shop/15m", "reverse-etl/shop/24h",
      "extract/crm/1m", "extract/crm/0 0 * * *", "dedup/crm/1h30m",
    ])
    error_message = "A pipeline could fall silent without an alarm, or one is silent for longer than Cloud Monitoring looks back."
  }
  assert {
    condition     = strcontains(google_monitoring_alert_policy.silent["extract/shop/1m"].conditions[0].condition_prometheus_query_language[0].query, "kind=\"extract\",pipeline=\"shop\",cadence=\"1m\"}[240s])") && google_monitoring_alert_policy.silent["extract/shop/1m"].conditions[0].condition_prometheus_query_language[0].duration == "360s"
    error_message = "Silence of a table with a cadence of a minute is noticed at another time than after ten minutes."
  }
  assert {
    condition     = strcontains(google_monitoring_alert_policy.silent["reverse-etl/shop/15m"].conditions[0].condition_prometheus_query_language[0].query, "kind=\"reverse_etl\",pipeline=\"shop\",cadence=\"15m\"}[1500s])") && google_monitoring_alert_policy.silent["reverse-etl/shop/15m"].conditions[0].condition_prometheus_query_language[0].duration == "1200s"
    error_message = "Silence of a sync every 15 minutes is noticed at another time than after three intervals."
  }
  assert {
    condition     = alltrue([for policy in google_monitoring_alert_policy.silent : tonumber(regex("\\[([0-9]+)s\\]", policy.conditions[0].condition_prometheus_query_language[0].query)[0]) <= 90000 && tonumber(trimsuffix(policy.conditions[0].condition_prometheus_query_language[0].duration, "s")) <= 82800])
    error_message = "An alert looks back longer than 25 hours, or waits longer than 23: Cloud Monitoring refuses it."
  }
  assert {
    condition     = alltrue([for policy in concat(values(google_monitoring_alert_policy.alert), values(google_monitoring_alert_policy.silent)) : policy.notification_channels == tolist(["projects/test-project/notificationChannels/1"]) && length(policy.documentation[0].content) > 300 && length(policy.documentation[0].content) < 8192])
    error_message = "An alert reaches nobody, or has no playbook, or one longer than Cloud Monitoring takes."
  }
  assert {
    condition     = alltrue([for metric in google_logging_metric.event : alltrue([for name in ["tidemark-extract", "tidemark-dedup", "tidemark-reverse-etl"] : strcontains(metric.filter, "\"${name}\"")])])
    error_message = "A metric does not count the lines of every function."
  }
}

run "labels" {
  command = plan

  variables {
    labels = { team = "data" }
  }

  assert {
    condition = alltrue([for labels in concat(
      [for r in google_cloudfunctions2_function.function : r.labels],
      [for r in google_pubsub_topic.tick : r.labels],
      [for r in google_pubsub_topic.dead_letter : r.labels],
      [for r in google_pubsub_subscription.push : r.labels],
      [for r in google_pubsub_subscription.dead_letter : r.labels],
      [for r in google_bigquery_dataset.destination : r.labels],
      [for r in google_bigquery_dataset.ledger : r.labels],
      [for r in google_monitoring_alert_policy.alert : r.user_labels],
      [for r in google_monitoring_alert_policy.silent : r.user_labels],
      [google_storage_bucket.source.labels, google_storage_bucket.staging.labels, google_artifact_registry_repository.images.labels],
    ) : labels["managed-by"] == "tidemark" && labels["team"] == "data"])
    error_message = "A resource has not got the labels."
  }
}
