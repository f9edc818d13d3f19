package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/telemetry"
)

// lines are the log lines that f writes, without their times.
func lines(t *testing.T, level string, f func(*slog.Logger)) []map[string]any {
	t.Helper()
	var out bytes.Buffer
	f(telemetry.NewLogger(&out, level))
	var got []map[string]any
	for line := range bytes.Lines(out.Bytes()) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s is no JSON: %v", line, err)
		}
		if _, ok := m["time"].(string); !ok {
			t.Errorf("%s has no time", line)
		}
		delete(m, "time")
		got = append(got, m)
	}
	return got
}

func TestLoggerSpeaksCloudLogging(t *testing.T) {
	t.Parallel()
	got := lines(t, "debug", func(l *slog.Logger) {
		ctx := t.Context()
		l.DebugContext(ctx, "d")
		l.InfoContext(ctx, "i", "rows", 3)
		l.WarnContext(ctx, "w", slog.Group("g", "msg", "kept", "level", "kept"))
		l.ErrorContext(ctx, "e\n\"quoted\"")
	})
	want := []map[string]any{
		{"severity": "DEBUG", "message": "d"},
		{"severity": "INFO", "message": "i", "rows": 3.0},
		{"severity": "WARNING", "message": "w", "g": map[string]any{"msg": "kept", "level": "kept"}},
		{"severity": "ERROR", "message": "e\n\"quoted\""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]int{"debug": 4, "DEBUG": 4, "info": 3, "warn": 2, "Error": 1, "": 3, "loud": 3} {
		got := lines(t, level, func(l *slog.Logger) {
			for _, at := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
				l.Log(t.Context(), at, "x")
			}
		})
		if len(got) != want {
			t.Errorf("LOG_LEVEL=%s lets %d lines through, want %d", level, len(got), want)
		}
	}
}

func TestWith(t *testing.T) {
	t.Parallel()
	got := lines(t, "info", func(l *slog.Logger) {
		run := telemetry.With(t.Context(), slog.String("run", "r1"), slog.String("table", "none"))
		orders := telemetry.With(run, slog.String("table", "orders"))
		items := telemetry.With(run, slog.String("table", "items"), slog.Int("batch", 2))
		for _, ctx := range []context.Context{t.Context(), run, orders, items} {
			l.With("with", true).InfoContext(ctx, "x", "n", 1)
		}
	})
	want := []map[string]any{
		{"severity": "INFO", "message": "x", "with": true, "n": 1.0},
		{"severity": "INFO", "message": "x", "with": true, "n": 1.0, "run": "r1", "table": "none"},
		{"severity": "INFO", "message": "x", "with": true, "n": 1.0, "run": "r1", "table": "orders"},
		{"severity": "INFO", "message": "x", "with": true, "n": 1.0, "run": "r1", "table": "items", "batch": 2.0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
