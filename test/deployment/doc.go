// Package deployment reads the Terraform files of a module without Terraform, a
// provider or a project: what they declare, and what their variables and locals
// come to. Tests check the files with it, and the archives that Terraform would
// upload are built with it.
//
// It evaluates what needs no plan. What a resource, a data source or a child module
// would tell is refused as *NotEvaluableError, and only where it is asked for; a
// function of Terraform's that it does not have is refused by name, and so are JSON
// and override files. Sensitive and ephemeral values are values like any other.
package deployment
