// Package buildpack builds a function's archive as Google's Go buildpack for
// functions does, step by step, with the go command of this machine.
//
// The steps are those of GoogleCloudPlatform/buildpacks at commit 21f28de8 (22 August
// 2026): cmd/go/functions_framework/lib/lib.go and converter/get_package/main.go move
// the source, look for its package and write a main for it; cmd/go/build/lib/lib.go
// builds that. What the buildpack would do for sources of other kinds is refused by
// name: archives without go.mod, sources that do not register their functions, and
// those that leave the version of the functions framework to it. Other than the
// buildpack we pass -trimpath, so that builds in different folders share what they
// compile.
package buildpack
