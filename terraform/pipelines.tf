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
  # interval has seconds, a cron expression has a zone; what is neither has null.
  cadences = {
    for text in distinct(flatten([for functions in local.declared_cadences : values(functions)])) : text => {
      seconds = can(regex("^([0-9]+[hms])+$", text)) ? sum([
        for part in regexall("([0-9]+)([hms])", text) : tonumber(part[0]) * { h = 3600, m = 60, s = 1 }[part[1]]
      ]) : null
      cron = try(regex("^(?:CRON_TZ=\\S+\\s+)?(\\S+(?:\\s+\\S+){4})$", trimspace(text))[0], null)
      zone = try(regex("^CRON_TZ=(\\S+)\\s", trimspace(text))[0], "Etc/UTC")
    }
  }

  # How the functions spell a cadence, whichever way the file does: the message
  # of a schedule has to match. pipeline.ParseCadence is the same rule in Go.
  canonical_cadence = {
    for text, cadence in local.cadences : text => cadence.seconds == null ? join(" ", compact(split(" ", text))) : join("", [
      floor(cadence.seconds / 3600) > 0 ? "${floor(cadence.seconds / 3600)}h" : "",
      floor(cadence.seconds % 3600 / 60) > 0 ? "${floor(cadence.seconds % 3600 / 60)}m" : "",
      cadence.seconds % 60 > 0 ? "${cadence.seconds % 60}s" : "",
    ])
  }

  unschedulable = [
    for text, cadence in local.cadences : text
    if cadence.seconds == null ? cadence.cron == null : cadence.seconds % 60 != 0 || cadence.seconds == 0
  ]

  # One entry per function, pipeline and cadence: what has to succeed, and how
  # long it may be silent: three intervals, and ten minutes at least (I9). Of a
  # cron expression the field that restricts it most tells how far apart it fires.
  heartbeats = merge(flatten([
    for pipeline, functions in local.declared_cadences : [
      for function, texts in functions : {
        for text in distinct(texts) : "${function}/${pipeline}/${local.canonical_cadence[text]}" => {
          function = function
          pipeline = pipeline
          cadence  = local.canonical_cadence[text]
          seconds  = local.cadences[text].seconds != null ? max(3 * local.cadences[text].seconds, 600) : local.cron_silence[text]
        }
      } if length(texts) > 0
    ]
  ])...)

  cron_silence = {
    for text, cadence in local.cadences : text => (
      cadence.cron == null ? 0 :
      split(" ", local.cron_fields[text])[2] != "*" || split(" ", local.cron_fields[text])[3] != "*" ? 35 * 86400 : # logs-based metrics end after six weeks
      split(" ", local.cron_fields[text])[4] != "*" ? 21 * 86400 :
      split(" ", local.cron_fields[text])[1] != "*" ? 3 * 86400 : 3 * 3600
    )
  }
  cron_fields = { for text, cadence in local.cadences : text => cadence.cron == null ? "" : join(" ", compact(split(" ", cadence.cron))) }

  # What the database users need to read and write.
  database_tables = distinct(flatten([
    for pipeline in local.pipelines : [
      for table in try(pipeline.tables, []) : { schema = try(pipeline.source.schema, "public"), table = table.name }
    ]
  ]))
  database_targets = flatten([
    for pipeline in local.pipelines : [
      for sync in try(pipeline.reverse_etl, []) : {
        schema  = try(pipeline.source.schema, "public")
        table   = sync.target.table
        key     = values(sync.target.key)
        columns = values(try(sync.target.columns, {}))
        insert  = sync.mode != "update"
      }
    ]
  ])
}

# Stops a plan whose pipeline files cannot be deployed, before anything is made.
resource "terraform_data" "pipelines" {
  lifecycle {
    precondition {
      condition     = length(local.pipelines) > 0
      error_message = "There is no *.yaml in ${local.pipelines_dir}: declare a pipeline there, or set pipelines_dir."
    }
    precondition {
      condition     = length(local.unschedulable) == 0
      error_message = "Cloud Scheduler cannot keep these cadences: ${join(", ", local.unschedulable)}. Write whole minutes (1m, 90m, 24h) or a cron expression of five fields (\"0 6 * * *\", \"CRON_TZ=Europe/Berlin 0 6 * * *\")."
    }
    precondition {
      condition     = length(setsubtract(keys(var.tenants), [for name, pipeline in local.pipelines : name if can(pipeline.tenants)])) == 0
      error_message = "The variable tenants names pipelines without a tenants section, or that do not exist: ${join(", ", setsubtract(keys(var.tenants), [for name, pipeline in local.pipelines : name if can(pipeline.tenants)]))}."
    }
  }
}
