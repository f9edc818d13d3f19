# The pipeline files, read as the functions read them, with the defaults of
# schemas/pipeline.schema.json; the rest of the deployment follows from them.

locals {
  pipeline_files = fileset(local.pipelines_dir, "*.yaml")

  pipelines = {
    for file in local.pipeline_files :
    yamldecode(file("${local.pipelines_dir}/${file}")).pipeline => yamldecode(file("${local.pipelines_dir}/${file}"))
  }

  # When each function works for each pipeline, as the files spell it.
  # 1m is what the functions take for a table without a cadence.
  declared_cadences = {
    for name, pipeline in local.pipelines : name => {
      extract     = [for table in try(pipeline.tables, []) : try(table.every, pipeline.defaults.every, "1m")]
      dedup       = [for dedup in [try(pipeline.dedup.every, "")] : dedup if dedup != ""]
      reverse-etl = [for sync in try(pipeline.reverse_etl, []) : sync.every if try(sync.every, "") != ""]
    }
  }

  # Every spelling of a cadence, with what Cloud Scheduler needs of it. An
  # interval has seconds, a cron expression has fields; what is neither has none.
  cadences = {
    for text in distinct(flatten([for functions in local.declared_cadences : values(functions)])) : text => {
      words = regexall("\\S+", text)
      seconds = can(regex("^([0-9]+[hms])+$", text)) ? sum([
        for part in regexall("([0-9]+)([hms])", text) : tonumber(part[0]) * { h = 3600, m = 60, s = 1 }[part[1]]
      ]) : null
      fields = try(regexall("[^ ]+", regex("^(?:CRON_TZ=\\S+ )?([0-9A-Za-z*/,-]+(?: [0-9A-Za-z*/,-]+){4})$", join(" ", regexall("\\S+", text)))[0]), null)
      zone   = try(regex("^\\s*CRON_TZ=(\\S+)\\s", text)[0], "Etc/UTC")
    }
  }

  # How the functions spell a cadence, whichever way the file does: the message
  # of a schedule has to match. pipeline.ParseCadence is the same rule in Go.
  canonical_cadence = {
    for text, cadence in local.cadences : text => cadence.seconds == null ? join(" ", cadence.words) : join("", [
      floor(cadence.seconds / 3600) > 0 ? "${floor(cadence.seconds / 3600)}h" : "",
      floor(cadence.seconds % 3600 / 60) > 0 ? "${floor(cadence.seconds % 3600 / 60)}m" : "",
      cadence.seconds % 60 > 0 ? "${cadence.seconds % 60}s" : "",
    ])
  }

  unschedulable = [
    for text, cadence in local.cadences : text
    if cadence.seconds == null ? cadence.fields == null : cadence.seconds % 60 != 0 || cadence.seconds == 0 || cadence.seconds > 86400
  ]

  # The longest time between two ticks of a cadence, in seconds; null where it is
  # more than a day. A cron expression of every hour has an hour, one of some hours
  # of every day a day, and any other more.
  gaps = {
    for text, cadence in local.cadences : text => (
      cadence.seconds != null ? cadence.seconds :
      cadence.fields == null ? null :
      join(" ", slice(cadence.fields, 2, 5)) != "* * *" ? null :
      cadence.fields[1] == "*" ? 3600 : 86400
    )
  }

  # What has to succeed, and how often: one entry per function, pipeline and cadence
  # of a day at most (I9). Rarer ones Cloud Monitoring cannot miss, since it looks
  # back 25 hours in metrics made of logs; of their tables the functions themselves say
  # that they are stale.
  heartbeats = merge(flatten([
    for pipeline, functions in local.declared_cadences : [
      for function, texts in functions : {
        for text in distinct(texts) : "${function}/${pipeline}/${local.canonical_cadence[text]}" => {
          function = function
          pipeline = pipeline
          cadence  = local.canonical_cadence[text]
          gap      = local.gaps[text]
        } if local.gaps[text] != null
      } if length(texts) > 0
    ]
  ])...)

  # What cannot be published: pipeline.Load refuses it as well, once it is deployed.
  misplaced_wal = flatten([
    for name, pipeline in local.pipelines : [
      for table in try(pipeline.tables, []) : "${name}.${table.name}"
      if try(table.capture.method, "") == "wal" && (can(pipeline.tenants.query) || can(table.query))
    ]
  ])

  # What the database users need to read and write. A table with a query is none of
  # the database, and what it reads only database.grants.reads can tell. A table of a
  # changelog that we keep gets triggers, one of wal is published for its pipeline.
  database_tables = distinct(flatten([
    for name, pipeline in local.pipelines : [
      for table in try(pipeline.tables, []) : concat(
        [for own in [table] : {
          schema  = try(pipeline.source.schema, "public")
          table   = own.name
          trigger = try(own.capture.method, "") == "changelog" && !can(own.capture.log.table)
          wal     = try(own.capture.method, "") == "wal" ? name : ""
        } if !can(own.query)],
        [for log in [try(table.capture.log.table, "")] : {
          schema  = try(regex("^([^.]+)[.]", log)[0], pipeline.source.schema, "public")
          table   = regex("[^.]+$", log)
          trigger = false
          wal     = ""
        } if log != ""],
        [for related in try(table.also_changed_by, []) : {
          schema  = try(pipeline.source.schema, "public")
          table   = related.table
          trigger = related.capture.method == "changelog"
          wal     = ""
        }],
      )
    ]
  ]))
  database_targets = flatten([
    for pipeline in local.pipelines : [
      for sync in try(pipeline.reverse_etl, []) : {
        schema  = try(pipeline.source.schema, "public")
        table   = sync.target.table
        key     = values(sync.target.key)
        columns = values(try(sync.target.columns, {}))
        deleted = try(sync.deleted_column, "")
        insert  = contains(["insert", "upsert", "mirror"], sync.mode)
        update  = sync.mode != "insert"
        delete  = sync.mode == "mirror" && try(sync.deletes, "hard") == "hard"
        where   = can(sync.target.where)
        tenant  = try(pipeline.tenants.column, "")
        many    = try(sync.target.many, false)
      }
    ]
  ])
}

# Stops a plan whose pipeline files cannot be deployed, before anything is made.
resource "terraform_data" "pipelines" {
  lifecycle {
    precondition {
      condition     = length(local.misplaced_wal) == 0
      error_message = "A replication slot follows the tables of one destination, so wal cannot capture these: ${join(", ", local.misplaced_wal)}. With tenants use changelog; capture a query by watermark, and name the tables that it joins under also_changed_by."
    }
    precondition {
      condition     = length(local.hashed) == 0 || local.hash_key != null
      error_message = "These tables have hashed columns: ${join(", ", local.hashed)}. Make a key (openssl rand -hex 32 | gcloud secrets create tidemark-hash-key --data-file=-) and name its version in the variable hash_key."
    }
    precondition {
      condition     = length(local.pipelines) > 0
      error_message = "There is no *.yaml in ${local.pipelines_dir}: declare a pipeline there, or set pipelines_dir."
    }
    precondition {
      condition     = length(local.unschedulable) == 0
      error_message = "Cloud Scheduler cannot keep these cadences: ${join(", ", local.unschedulable)}. Write whole minutes up to a day (1m, 90m, 24h) or a cron expression of five fields (\"0 6 * * 1\", \"CRON_TZ=Europe/Berlin 0 6 * * *\")."
    }
    precondition {
      condition     = length(local.bad_tenants) == 0
      error_message = "These tenants have no dataset of their own: ${join(", ", local.bad_tenants)}. Give each the columns that tenants.dataset names, with values of letters, digits and underscores that no other tenant or pipeline has."
    }
    precondition {
      condition     = length(local.bad_ledgers) == 0
      error_message = "The ledgers of syncs are kept in datasets that end in _ledger, and these belong to pipelines or tenants: ${join(", ", local.bad_ledgers)}. Give those another name."
    }
    precondition {
      condition     = length(local.boundless) == 0
      error_message = "The tenants of ${join(", ", local.boundless)} are found at run time, and their datasets' names begin like those of others: the functions would get rights on datasets that are not the tenants'. Have tenants.dataset begin with letters that no other dataset begins with, or list the tenants in the variable tenants."
    }
    precondition {
      condition     = length(setsubtract(keys(var.tenants), [for name, pipeline in local.pipelines : name if can(pipeline.tenants)])) == 0
      error_message = "The variable tenants names pipelines without a tenants section, or that do not exist: ${join(", ", setsubtract(keys(var.tenants), [for name, pipeline in local.pipelines : name if can(pipeline.tenants)]))}."
    }
  }
}
