variable "alerts" {
  description = <<-EOT
    Where alerts go and when they fire. channels: notification channels
    (projects/<project>/notificationChannels/<id>). rejects: rows of one table
    rejected in an hour. billed_bytes: bytes that the functions' BigQuery jobs
    process in a day, default 1 TiB.
  EOT
  type = object({
    channels     = optional(list(string), [])
    rejects      = optional(number, 0)
    billed_bytes = optional(number, 1099511627776)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for channel in var.alerts.channels : can(regex("^projects/[^/]+/notificationChannels/[^/]+$", channel))])
    error_message = "alerts.channels: write the full names, projects/<project>/notificationChannels/<id>."
  }
  validation {
    condition     = var.alerts.rejects >= 0 && var.alerts.billed_bytes > 0
    error_message = "alerts: rejects is 0 or more, billed_bytes is more than 0."
  }
}

variable "database" {
  description = <<-EOT
    The Postgres database. name: the database. instance: an existing Cloud SQL
    instance, project:region:instance; leave it out to have one made (variable
    instance). ip_type: how the functions reach it, PUBLIC, PRIVATE or PSC; the
    latter two need network. connections: how many the functions may hold
    together. grants: the rights of the functions' users in the database; run: by
    this deployment, through the Data API of Cloud SQL (else run the output
    database_grants yourself); user and password_secret_version: as that built-in
    user, else as the IAM identity that runs terraform; deployer: that identity's
    e-mail, to make it a user of an instance that is made here; reads: further
    tables that the pipelines' queries on the database read: those of tenants, of
    tables and of also_changed_by, and log.type.query. They are granted to Extract,
    or, where a pipeline has tenants, to each function that lists them.
  EOT
  type = object({
    name        = string
    instance    = optional(string)
    ip_type     = optional(string, "PUBLIC")
    connections = optional(number, 80)
    grants = optional(object({
      run                     = optional(bool, true)
      user                    = optional(string)
      password_secret_version = optional(string)
      deployer                = optional(string)
      reads                   = optional(list(object({ schema = optional(string, "public"), table = string })), [])
    }), {})
  })
  nullable = false

  validation {
    condition     = var.database.instance == null || can(regex("^[a-z0-9.:-]+:[a-z0-9-]+:[a-z0-9-]+$", var.database.instance))
    error_message = "database.instance: write project:region:instance, as `gcloud sql instances describe <instance> --format='value(connectionName)'` prints it."
  }
  validation {
    condition     = (var.database.instance == null) != (var.instance == null)
    error_message = "Set either database.instance, to use a Cloud SQL instance that exists, or the variable instance, to have one made; not both, and not neither."
  }
  validation {
    condition     = contains(["PUBLIC", "PRIVATE", "PSC"], var.database.ip_type)
    error_message = "database.ip_type: write PUBLIC, PRIVATE or PSC."
  }
  validation {
    condition     = var.database.ip_type == "PUBLIC" || var.network != null
    error_message = "database.ip_type PRIVATE and PSC need the variable network: the functions reach the database through it."
  }
  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$", var.database.name))
    error_message = "database.name: write the name of the database, letters, digits, _ and -."
  }
  validation {
    condition     = (var.database.grants.user == null) == (var.database.grants.password_secret_version == null)
    error_message = "database.grants: set user and password_secret_version together, or neither to run the grants as the IAM identity that runs terraform."
  }
  validation {
    condition     = var.database.grants.password_secret_version == null || can(regex("^projects/[^/]+/locations/[^/]+/secrets/[^/]+/versions/[^/]+$", var.database.grants.password_secret_version))
    error_message = "database.grants.password_secret_version: Cloud SQL reads regional secrets only, projects/<project>/locations/<region>/secrets/<secret>/versions/<version>."
  }
  validation {
    condition     = var.instance == null || !var.database.grants.run || var.database.grants.user != null || var.database.grants.deployer != null
    error_message = "database.grants.deployer: name the account that runs terraform (its e-mail), so that it becomes a user of the new instance and may run the grants; or set grants.user, or grants.run = false."
  }
}

variable "functions" {
  description = "What a function gets instead of its defaults, by name (extract, dedup, reverse-etl): memory, such as 1Gi; cpu; max_instances, each of which may hold 10 database connections; min_instances, kept warm and billed."
  type = map(object({
    memory        = optional(string)
    cpu           = optional(string)
    max_instances = optional(number)
    min_instances = optional(number)
  }))
  default  = {}
  nullable = false

  validation {
    condition     = length(setsubtract(keys(var.functions), ["extract", "dedup", "reverse-etl"])) == 0
    error_message = "functions: the names are extract, dedup and reverse-etl."
  }
  validation {
    condition     = alltrue([for function in values(var.functions) : function.memory == null || can(regex("^[0-9]+(M|G|Mi|Gi)$", function.memory))])
    error_message = "functions: write memory as 512Mi or 1Gi."
  }
  validation {
    condition     = alltrue([for function in values(var.functions) : try(function.max_instances >= 1, true) && try(function.max_instances <= 100, true) && try(function.min_instances >= 0, true)])
    error_message = "functions: max_instances is 1 to 100, min_instances is 0 or more."
  }
}

variable "hash_key" {
  description = "The secret whose version holds the key of hashed columns (columns.hash), projects/<project>/secrets/<secret>/versions/<number>: at least 32 bytes, as openssl rand -hex 32 prints them. Needed where a pipeline file has such columns. Another key makes other hashes, which no longer join with the ones before: then have those tables read again."
  type        = string
  default     = null

  validation {
    condition     = var.hash_key == null || can(regex("^projects/[^/]+/secrets/[^/]+/versions/[0-9]+$", var.hash_key))
    error_message = "hash_key: write projects/<project>/secrets/<secret>/versions/<number>; the number, since with latest a new version would change what equal values are hashed to."
  }
}

variable "instance" {
  description = <<-EOT
    A Cloud SQL instance to make, in the project and region of the functions; null
    to use database.instance. version: POSTGRES_14 or newer. edition and tier: as
    Cloud SQL names them. availability_type: REGIONAL or ZONAL. backup_start:
    HH:MM in UTC. flags: further database flags.
  EOT
  type = object({
    name              = string
    version           = optional(string, "POSTGRES_17")
    edition           = optional(string, "ENTERPRISE")
    tier              = optional(string, "db-custom-2-7680")
    availability_type = optional(string, "REGIONAL")
    disk_size_gb      = optional(number, 20)
    backup_start      = optional(string, "02:00")
    retained_backups  = optional(number, 14)
    flags             = optional(map(string), {})
  })
  default = null

  validation {
    condition     = var.instance == null || can(regex("^[a-z][a-z0-9-]{0,96}[a-z0-9]$", var.instance.name))
    error_message = "instance.name: lower-case letters, digits and hyphens, beginning with a letter."
  }
  validation {
    condition     = var.instance == null || can(regex("^POSTGRES_(1[4-9]|[2-9][0-9])$", var.instance.version))
    error_message = "instance.version: write POSTGRES_14 or newer, such as POSTGRES_17."
  }
  validation {
    condition     = var.instance == null || contains(["ENTERPRISE", "ENTERPRISE_PLUS"], try(var.instance.edition, ""))
    error_message = "instance.edition: write ENTERPRISE or ENTERPRISE_PLUS."
  }
  validation {
    condition     = var.instance == null || contains(["REGIONAL", "ZONAL"], try(var.instance.availability_type, ""))
    error_message = "instance.availability_type: write REGIONAL, with a standby, or ZONAL."
  }
  validation {
    condition     = var.instance == null || can(regex("^([01][0-9]|2[0-3]):[0-5][0-9]$", var.instance.backup_start))
    error_message = "instance.backup_start: write HH:MM, in UTC."
  }
  validation {
    condition     = length(setintersection(keys(try(var.instance.flags, {})), ["cloudsql.iam_authentication", "cloudsql.logical_decoding"])) == 0
    error_message = "instance.flags: cloudsql.iam_authentication and cloudsql.logical_decoding are set by the deployment; leave them out."
  }
}

variable "keep_data" {
  description = "Whether `terraform destroy` leaves the datasets and a Cloud SQL instance made here, with everything in them. Set it to false, apply, and then destroy to delete them."
  type        = bool
  default     = true
  nullable    = false
}

variable "labels" {
  description = "Labels for every resource that can have them, besides managed-by=tidemark."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value)) && key != "managed-by"])
    error_message = "labels: lower-case letters, digits, _ and -, at most 63 characters, keys beginning with a letter; managed-by is taken."
  }
}

variable "location" {
  description = "BigQuery location of the datasets: a region such as europe-west1, or EU or US."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^([A-Z]{2}|[a-z]+-[a-z]+[0-9]+)$", var.location))
    error_message = "location: write EU, US or a region such as europe-west1."
  }
}

variable "log_level" {
  description = "Least severe lines that the functions log: debug, info, warn or error. What alerts count is logged at any level."
  type        = string
  default     = "info"
  nullable    = false

  validation {
    condition     = contains(["debug", "info", "warn", "error"], var.log_level)
    error_message = "log_level: write debug, info, warn or error."
  }
}

variable "network" {
  description = "The VPC through which the functions reach the database: network (projects/<project>/global/networks/<name>), subnetwork (projects/<project>/regions/<region>/subnetworks/<name>, in the functions' region, with room for their instances), network tags. null: over the instance's public address, encrypted and by IAM."
  type = object({
    network    = string
    subnetwork = string
    tags       = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.network == null || can(regex("projects/[^/]+/global/networks/[^/]+$", var.network.network)) && can(regex("projects/[^/]+/regions/[^/]+/subnetworks/[^/]+$", var.network.subnetwork))
    error_message = "network: write projects/<project>/global/networks/<name> and projects/<project>/regions/<region>/subnetworks/<name>."
  }
}

variable "paused" {
  description = "Whether the schedules stand still. Messages published by hand are served all the same."
  type        = bool
  default     = false
  nullable    = false
}

variable "pipelines_dir" {
  description = "Folder of the pipeline files; null for schemas/pipelines beside this module."
  type        = string
  default     = null
}

variable "project" {
  description = "Project of the functions, the topics and the datasets."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project: write the project's id, not its name or number."
  }
}

variable "region" {
  description = "Region of the functions; best the region of the database."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region: write a region such as europe-west1."
  }
}

variable "reverse_etl_reads" {
  description = "Datasets of the project, besides the pipelines' own, that the queries of reverse_etl read."
  type        = set(string)
  default     = []
  nullable    = false
}

variable "scheduler_region" {
  description = "Region of the schedules, where Cloud Scheduler is not offered in the functions' region."
  type        = string
  default     = null
}

variable "tenants" {
  description = "The tenants of pipelines that have a tenants section: by pipeline, by tenant, the columns of tenants.query that its dataset template names. Their datasets are then made here and granted one by one. A pipeline left out has its tenants found at run time; the functions then may use every dataset whose name begins like the template."
  type        = map(map(map(string)))
  default     = {}
  nullable    = false
}

locals {
  labels = merge(var.labels, { managed-by = "tidemark" })
}
