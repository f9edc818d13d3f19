# One Postgres in the application's project; the tenants' rows in two other
# projects, those of Europe in the EU and those of America in the US. Each project
# has a deployment of its own, with its own functions, datasets and bill; they
# share the database and the control plane in it, so both are of one version.
#
#   terraform init
#   terraform apply -var-file=deployment.tfvars
#
# The datasets of the tenants listed here are made and granted one by one. Leave
# tenants out, and a new tenant gets its dataset at its first tick; the functions
# may then use every dataset whose name begins with org_.

provider "google" {}

module "tidemark" {
  source   = "../.."
  for_each = var.deployments

  project       = each.value.project
  region        = split(":", var.instance)[1]
  location      = each.value.location
  pipelines_dir = "${path.module}/pipelines/${each.key}"
  tenants       = { "crm_${each.key}" = each.value.tenants }

  database = {
    name        = "crm"
    instance    = var.instance
    ip_type     = "PRIVATE"
    connections = 80
    grants      = { reads = [{ table = "organizations" }] } # tenants.query reads it
  }
  network = var.network # shared with the functions' projects
  alerts  = { channels = each.value.channels }
  labels  = { part = each.key }
}

variable "instance" {
  description = "Connection name of the Cloud SQL instance, project:region:instance."
  type        = string
}

variable "network" {
  description = "The VPC that the instance has its private address in, shared with the functions' projects."
  type        = object({ network = string, subnetwork = string })
}

variable "deployments" {
  description = "The projects that rows go to, by the folder of their pipeline files: location of the datasets, notification channels, and the tenants by id, with the columns that the dataset template names."
  type = map(object({
    project  = string
    location = string
    channels = optional(list(string), [])
    tenants  = map(object({ slug = string }))
  }))
}

output "datasets" {
  description = "Datasets of the tenants, by deployment."
  value       = { for name, deployment in module.tidemark : name => deployment.datasets }
}

terraform {
  required_version = ">= 1.11.0"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.44.0, < 8.0.0"
    }
  }
}
