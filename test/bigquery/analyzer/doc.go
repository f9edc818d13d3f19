// Package analyzer checks GoogleSQL text with Google's own parser and
// analyzer, against the tables that exist at that moment, and reports what a
// statement is, what it returns and what it reads or writes.
//
// The analyzer is github.com/goccy/go-googlesql, whose first build takes
// minutes and gigabytes of memory. It is therefore linked only with the build
// tag googlesql; without the tag Available is false and Analyze refuses.
package analyzer
