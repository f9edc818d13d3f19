//go:build !googlesql

package analyzer

import "errors"

// Available says whether this binary holds the analyzer.
const Available bool = false

// ErrUnavailable is what Analyze returns in a binary built without the tag.
var ErrUnavailable = errors.New("the GoogleSQL analyzer is not in this binary: build with -tags googlesql")

func analyze(string, Options) (Result, error) { return Result{}, ErrUnavailable }
