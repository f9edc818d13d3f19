package telemetry

import (
	"context"
	"errors"
	"iter"
	"log/slog"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// scoped is an error that knows the attributes of where it happened.
type scoped struct {
	error
	attrs []slog.Attr
}

func (s *scoped) Unwrap() error { return s.error }

// Scope gives err the attributes of the context, for the line that reports it to
// carry. An error that has a scope keeps it, since it was given nearer to the cause;
// nil stays nil.
func Scope(ctx context.Context, err error) error {
	var s *scoped
	attrs, ok := ctx.Value(key{}).([]slog.Attr)
	if err == nil || !ok || errors.As(err, &s) {
		return err
	}
	return &scoped{err, attrs}
}

// Failures are the parts of an error, which is not nil, each with the context to
// report it with. What has one scope, or none, is one failure, whatever was joined in
// it: a client joins the addresses it has tried.
func Failures(ctx context.Context, err error) iter.Seq2[context.Context, error] {
	return func(yield func(context.Context, error) bool) {
		for _, part := range fault.Split(err, isOne) {
			at := ctx
			var s *scoped
			if errors.As(part, &s) {
				at = With(ctx, s.attrs...)
			}
			if !yield(at, part) {
				return
			}
		}
	}
}

func isOne(err error) bool {
	var s *scoped
	if _, ok := err.(*scoped); ok { //nolint:errorlint // the chain is walked step by step
		return true
	}
	return !errors.As(err, &s)
}
