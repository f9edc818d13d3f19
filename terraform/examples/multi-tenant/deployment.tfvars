instance = "crm-app:europe-west1:main"

network = {
  network    = "projects/crm-network/global/networks/shared"
  subnetwork = "projects/crm-network/regions/europe-west1/subnetworks/functions"
}

deployments = {
  eu = {
    project  = "crm-data-eu"
    location = "EU"
    tenants  = { "1" = { slug = "acme" }, "7" = { slug = "globex" } }
  }
  us = {
    project  = "crm-data-us"
    location = "US"
    tenants  = { "3" = { slug = "initech" } }
  }
}
