# What each function is built from: only the files that it needs, read one by
# one, so that a changed test, document or other function deploys nothing. The
# buildpack wants a Go package at the root of the archive; function.go.tftpl is it.

locals {
  source_dir    = "${path.module}/.."
  pipelines_dir = coalesce(var.pipelines_dir, "${local.source_dir}/schemas/pipelines")
  contracts_dir = coalesce(var.pipelines_dir, "${local.source_dir}/schemas") # its folder bigquery

  # Tests stay at home: their tools are not downloaded by a build.
  source_files = [
    for file in setunion(
      ["go.mod", "go.sum"],
      fileset(local.source_dir, "schemas/*.go"),
      fileset(local.source_dir, "schemas/*.json"),
      ["schemas/bigquery/README.md"], # without a file, Go embeds no folder
      fileset(local.source_dir, "schemas/postgres/*.sql"),
      fileset(local.source_dir, "shared/**/*.go"),
    ) : file if !endswith(file, "_test.go")
  ]

  # The contents of each function's archive, by the path in it.
  archives = {
    for name, function in local.functions : name => merge(
      {
        for file in concat(local.source_files, [
          for file in fileset(local.source_dir, "functions/${function.package}/**/*.go") : file if !endswith(file, "_test.go")
        ]) : file => file("${local.source_dir}/${file}")
      },
      { for file in local.pipeline_files : "schemas/pipelines/${file}" => file("${local.pipelines_dir}/${file}") },
      { for file in fileset(local.contracts_dir, "bigquery/**") : "schemas/${file}" => file("${local.contracts_dir}/${file}") },
      { "function.go" = templatefile("${path.module}/function.go.tftpl", { package = function.package }) },
    )
  }
}

data "archive_file" "function" {
  for_each = local.functions

  type        = "zip"
  output_path = "${path.root}/.terraform/tidemark/${var.project}/${each.key}.zip"

  dynamic "source" {
    for_each = local.archives[each.key]
    content {
      filename = source.key
      content  = source.value
    }
  }
}
