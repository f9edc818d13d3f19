# The smallest deployment: a Cloud SQL instance that exists, with a public
# address, and the pipeline files of this repository.
#
#   terraform init
#   terraform apply -var project=my-project -var instance=my-project:europe-west1:main -var database=app
#
# The instance needs the flag cloudsql.iam_authentication=on and, since the
# grants are run through it, the Data API; whoever applies is one of its IAM users.

provider "google" {}

module "tidemark" {
  source = "../.."

  project  = var.project
  region   = split(":", var.instance)[1]
  location = "EU"
  database = {
    name     = var.database
    instance = var.instance
  }
}

variable "project" {
  description = "Project of the functions, topics and datasets."
  type        = string
}

variable "instance" {
  description = "Connection name of the Cloud SQL instance, project:region:instance."
  type        = string
}

variable "database" {
  description = "Name of the Postgres database."
  type        = string
}

output "run_now" {
  description = "Commands that have each function do all its work now."
  value       = module.tidemark.run_now
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
