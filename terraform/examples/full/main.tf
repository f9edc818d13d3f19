# Everything made here: the network, a Cloud SQL instance with a private address
# and a standby, the deployment, and an e-mail when something is wrong.
#
#   terraform init
#   terraform apply -var project=my-project -var email=oncall@example.com -var deployer=me@example.com

locals {
  region = "europe-west1"
}

provider "google" {
  project = var.project
  region  = local.region
}

module "tidemark" {
  source = "../.."

  project       = var.project
  region        = local.region
  location      = "EU"
  pipelines_dir = "${path.module}/pipelines"

  instance = {
    name    = "shop"
    version = "POSTGRES_17"
    tier    = "db-custom-4-15360"
    flags   = { max_connections = "200" }
  }
  database = {
    name        = "shop"
    ip_type     = "PRIVATE"
    connections = 120
    grants      = { deployer = var.deployer }
  }
  network = {
    network    = google_service_networking_connection.sql.network # the peering comes before the instance
    subnetwork = google_compute_subnetwork.functions.id
    tags       = ["tidemark"]
  }

  functions = {
    extract     = { memory = "1Gi", max_instances = 8 }
    reverse-etl = { memory = "1Gi" }
  }
  reverse_etl_reads = ["marketing"]

  alerts = {
    channels     = [google_monitoring_notification_channel.oncall.id]
    rejects      = 10
    billed_bytes = 5 * pow(1024, 4)
  }
  labels = { team = "data", cost-center = "analytics" }
}

resource "google_project_service" "network" {
  for_each = toset(["compute.googleapis.com", "servicenetworking.googleapis.com"])

  service            = each.key
  disable_on_destroy = false
}

resource "google_compute_network" "vpc" {
  name                    = "shop"
  auto_create_subnetworks = false
  deletion_policy         = "ABANDON" # a destroy leaves the instance, and so its network

  depends_on = [google_project_service.network]
}

# Each instance of a function takes an address, and keeps it a while: a /26 at least.
resource "google_compute_subnetwork" "functions" {
  name                     = "functions"
  network                  = google_compute_network.vpc.id
  ip_cidr_range            = "10.10.0.0/24"
  private_ip_google_access = true
}

resource "google_compute_global_address" "sql" {
  name          = "cloud-sql"
  network       = google_compute_network.vpc.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20

  deletion_policy = "ABANDON"
}

resource "google_service_networking_connection" "sql" {
  network                 = google_compute_network.vpc.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.sql.name]
  deletion_policy         = "ABANDON"
}

resource "google_monitoring_notification_channel" "oncall" {
  display_name = "On call"
  type         = "email"
  labels       = { email_address = var.email }
}

variable "project" {
  description = "Project of everything."
  type        = string
}

variable "email" {
  description = "Where alerts go."
  type        = string
}

variable "deployer" {
  description = "E-mail of the account that runs terraform; it may run the grants in the new instance."
  type        = string
}

output "instance" {
  description = "Connection name of the instance, for the application."
  value       = module.tidemark.instance
}

output "dashboard" {
  description = "Id of the dashboard."
  value       = module.tidemark.dashboard
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
