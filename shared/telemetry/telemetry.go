// Package telemetry writes logs as Cloud Logging reads them: JSON lines with
// severity and message, and on every line what the context says of the run,
// pipeline, tenant and table. Row values never go into a log.
package telemetry

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// NewLogger returns a logger of JSON lines. level is LOG_LEVEL: debug, info,
// warn or error; anything else is info.
func NewLogger(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(strings.ToUpper(level))); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(handler{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l, ReplaceAttr: rename})})
}

// rename gives the keys and severities of
// https://docs.cloud.google.com/logging/docs/structured-logging.
func rename(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.MessageKey:
		a.Key = "message"
	case slog.LevelKey:
		a.Key = "severity"
		if a.Value.String() == slog.LevelWarn.String() {
			a.Value = slog.StringValue("WARNING")
		}
	}
	return a
}

type key struct{}

// With returns a context whose log lines carry the attributes besides those it
// had; one given again replaces the former.
func With(ctx context.Context, attrs ...slog.Attr) context.Context {
	var all []slog.Attr
	if had, ok := ctx.Value(key{}).([]slog.Attr); ok {
		for _, a := range had {
			if !slices.ContainsFunc(attrs, func(b slog.Attr) bool { return a.Key == b.Key }) {
				all = append(all, a)
			}
		}
	}
	return context.WithValue(ctx, key{}, append(all, attrs...))
}

// handler adds the attributes of the context to each record.
type handler struct{ slog.Handler }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if attrs, ok := ctx.Value(key{}).([]slog.Attr); ok {
		r = r.Clone()
		r.AddAttrs(attrs...)
	}
	return h.Handler.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
