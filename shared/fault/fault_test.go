package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidemark-data/tidemark/shared/fault"
)

type postgresError string

func (e postgresError) Error() string    { return "ERROR: " + string(e) }
func (e postgresError) SQLState() string { return string(e) }

func http403(reason string) error {
	return &googleapi.Error{Code: http.StatusForbidden, Errors: []googleapi.ErrorItem{{Reason: reason}}}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	const (
		permanent = fault.Permanent
		transient = fault.Transient
	)
	tests := []struct {
		name   string
		err    error
		want   fault.Class
		remedy bool
	}{
		{"nothing known", errors.New("x"), transient, false},
		{"known to its author", fault.Fix(errors.New("x"), "mend it"), permanent, true},
		{"its author knows better", fault.Fix(postgresError("40001"), "mend it"), permanent, true},
		{"marked transient", &fault.Error{Class: transient, Remedy: "wait", Err: postgresError("42P01")}, transient, true},

		{"password", postgresError("28P01"), permanent, true},
		{"login", postgresError("28000"), permanent, true},
		{"no database", postgresError("3D000"), permanent, true},
		{"no right", postgresError("42501"), permanent, true},
		{"no table", postgresError("42P01"), permanent, true},
		{"no column", postgresError("42703"), permanent, true},
		{"syntax", postgresError("42601"), permanent, false},
		{"out of range", postgresError("22003"), permanent, false},
		{"unique", postgresError("23505"), permanent, false},
		{"feature", postgresError("0A000"), permanent, false},
		{"failover", postgresError("25006"), transient, true},
		{"connection lost", postgresError("08006"), transient, false},
		{"serialization", postgresError("40001"), transient, false},
		{"deadlock", postgresError("40P01"), transient, false},
		{"too many connections", postgresError("53300"), transient, false},
		{"disk full", postgresError("53100"), transient, false},
		{"lock timeout", postgresError("55P03"), transient, false},
		{"statement timeout", postgresError("57014"), transient, false},
		{"shutdown", postgresError("57P01"), transient, false},
		{"starting up", postgresError("57P03"), transient, false},
		{"internal", postgresError("XX000"), transient, false},
		{"raised", postgresError("P0001"), transient, false},
		{"no state", postgresError(""), transient, false},
		{"half a state", postgresError("4"), transient, false},

		{"401", &googleapi.Error{Code: 401}, permanent, true},
		{"403 accessDenied", http403("accessDenied"), permanent, true},
		{"403 accessNotConfigured", http403("accessNotConfigured"), permanent, true},
		{"403 forbidden", http403("forbidden"), permanent, true},
		{"403 insufficientPermissions", http403("insufficientPermissions"), permanent, true},
		{"403 notAuthorized", http403("notAuthorized"), permanent, true},
		{"403 quotaExceeded", http403("quotaExceeded"), transient, true},
		{"403 rateLimitExceeded", http403("rateLimitExceeded"), transient, true},
		{"403 without a reason", &googleapi.Error{Code: 403}, transient, true},
		{"404", &googleapi.Error{Code: 404}, permanent, true},
		{"400", &googleapi.Error{Code: 400}, permanent, false},
		{"409", &googleapi.Error{Code: 409}, transient, false},
		{"429", &googleapi.Error{Code: 429}, transient, false},
		{"500", &googleapi.Error{Code: 500}, transient, false},
		{"503", &googleapi.Error{Code: 503}, transient, false},

		{"Unavailable", status.Error(codes.Unavailable, ""), transient, false},
		{"Aborted", status.Error(codes.Aborted, ""), transient, false},
		{"Internal", status.Error(codes.Internal, ""), transient, false},
		{"ResourceExhausted", status.Error(codes.ResourceExhausted, ""), transient, false},
		{"DeadlineExceeded", status.Error(codes.DeadlineExceeded, ""), transient, false},
		{"Canceled", status.Error(codes.Canceled, ""), transient, false},
		{"Unknown", status.Error(codes.Unknown, ""), transient, false},
		{"InvalidArgument", status.Error(codes.InvalidArgument, ""), permanent, false},
		{"Unimplemented", status.Error(codes.Unimplemented, ""), permanent, false},
		{"PermissionDenied", status.Error(codes.PermissionDenied, ""), permanent, true},
		{"Unauthenticated", status.Error(codes.Unauthenticated, ""), permanent, true},
		{"NotFound", status.Error(codes.NotFound, ""), permanent, true},

		{"name not resolved", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}}, transient, true},
		{"cut off", io.ErrUnexpectedEOF, transient, true},
		{"deadline", context.DeadlineExceeded, transient, true},
		{"canceled", context.Canceled, transient, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, err := range []error{test.err, fmt.Errorf("doing: %w", fmt.Errorf("this: %w", test.err)), errors.Join(test.err)} {
				class, remedy := fault.Classify(err)
				if class != test.want || (remedy != "") != test.remedy {
					t.Errorf("Classify(%#v) = %v, %q", err, class, remedy)
				}
			}
		})
	}
}

// TestClassifyConnectionRefused with the error a real connection gives.
func TestClassifyConnectionRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.Listener.Addr().String()
	server.Close()
	_, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if class, remedy := fault.Classify(err); err == nil || class != fault.Transient || remedy != "nothing listens at that address: check host and port, and that the server is up" {
		t.Errorf("Classify(%v) = %v, %q", err, class, remedy)
	}
}

func TestErrorKeepsTheText(t *testing.T) {
	t.Parallel()
	inner := errors.New("inner")
	err := fault.Fix(inner, "mend it")
	if err.Error() != "inner" || !errors.Is(err, inner) {
		t.Errorf("Fix = %v", err)
	}
	if diff := cmp.Diff([]string{"transient", "permanent"}, []string{fault.Transient.String(), fault.Permanent.String()}); diff != "" {
		t.Error(diff)
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	plain := errors.New("x")
	type codesOf struct {
		State string
		HTTP  int
		GRPC  codes.Code
	}
	tests := map[string]struct {
		err  error
		want codesOf
	}{
		"none":     {plain, codesOf{GRPC: codes.OK}},
		"nil":      {nil, codesOf{GRPC: codes.OK}},
		"Postgres": {fmt.Errorf("a: %w", postgresError("23505")), codesOf{State: "23505"}},
		"HTTP":     {fmt.Errorf("a: %w", &googleapi.Error{Code: 404}), codesOf{HTTP: 404}},
		"gRPC":     {fmt.Errorf("a: %w", status.Error(codes.Aborted, "b")), codesOf{GRPC: codes.Aborted}},
		"joined":   {errors.Join(plain, &googleapi.Error{Code: 409}, postgresError("42P01")), codesOf{State: "42P01", HTTP: 409}},
	}
	for name, test := range tests {
		got := codesOf{fault.SQLState(test.err), fault.HTTPStatus(test.err), fault.GRPCCode(test.err)}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRecorded(t *testing.T) {
	t.Parallel()
	known, other := fault.Recorded(fault.Fix(errors.New("a"), "mend it")), errors.New("b")
	tests := map[string]struct {
		err  error
		want bool
	}{
		"nil":              {nil, false},
		"not":              {other, false},
		"itself":           {known, true},
		"wrapped":          {fmt.Errorf("doing: %w", known), true},
		"all parts":        {errors.Join(known, fmt.Errorf("doing: %w", known)), true},
		"not all parts":    {errors.Join(known, other), false},
		"nested":           {fmt.Errorf("doing: %w", errors.Join(known, errors.Join(known, other))), false},
		"wrapped and join": {fmt.Errorf("doing: %w", errors.Join(known)), true},
	}
	for name, test := range tests {
		if got := fault.IsRecorded(test.err); got != test.want {
			t.Errorf("IsRecorded(%s) = %t", name, got)
		}
	}
	if err := fault.Recorded(nil); err != nil {
		t.Errorf("Recorded(nil) = %v", err)
	}
	if class, remedy := fault.Classify(known); class != fault.Permanent || remedy != "mend it" {
		t.Errorf("recording changed the class: %v, %q", class, remedy)
	}
}

// TestClassifyJoined: permanent only if every part is, and a class that its author
// gave stands, whatever was joined underneath.
func TestClassifyJoined(t *testing.T) {
	t.Parallel()
	permanent, transient := fault.Fix(errors.New("a"), "mend it"), errors.New("b")
	for name, test := range map[string]struct {
		err   error
		class fault.Class
	}{
		"all permanent":           {errors.Join(permanent, fault.Fix(errors.New("c"), "")), fault.Permanent},
		"one transient":           {fmt.Errorf("doing: %w", errors.Join(permanent, transient)), fault.Transient},
		"permanent by its author": {fmt.Errorf("doing: %w", fault.Fix(errors.Join(transient, transient), "mend it")), fault.Permanent},
		"transient by its author": {&fault.Error{Class: fault.Transient, Err: errors.Join(permanent, permanent)}, fault.Transient},
	} {
		if class, _ := fault.Classify(test.err); class != test.class {
			t.Errorf("%s: %v, want %v", name, class, test.class)
		}
	}
}

func TestParts(t *testing.T) {
	t.Parallel()
	a, b, c := errors.New("a"), errors.New("b"), fault.Fix(errors.New("c"), "mend it")
	wrapped := fmt.Errorf("doing: %w", a)
	tests := map[string]struct {
		err  error
		want []error
	}{
		"one":           {a, []error{a}},
		"one, wrapped":  {wrapped, []error{wrapped}},
		"its class too": {c, []error{c}},
		"joined":        {errors.Join(a, c), []error{a, c}},
		"joined twice":  {errors.Join(errors.Join(a, b), c), []error{a, b, c}},
		"wrapped join":  {fmt.Errorf("doing: %w", errors.Join(a, wrapped)), []error{a, wrapped}},
		"recorded":      {fault.Recorded(errors.Join(a, b)), []error{a, b}},
	}
	same := cmp.Comparer(func(x, y error) bool { return x == y }) //nolint:errorlint // the very same error is meant
	for name, test := range tests {
		if diff := cmp.Diff(test.want, fault.Parts(test.err), same); diff != "" {
			t.Errorf("Parts(%s) (-want +got):\n%s", name, diff)
		}
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	a, b := errors.New("a"), errors.New("b")
	kept := fmt.Errorf("kept: %w", errors.Join(a, b))
	same := cmp.Comparer(func(x, y error) bool { return x == y })                                                         //nolint:errorlint // the very same error is meant
	got := fault.Split(fault.Recorded(errors.Join(kept, errors.Join(a, b))), func(err error) bool { return err == kept }) //nolint:errorlint // as above
	if diff := cmp.Diff([]error{kept, a, b}, got, same); diff != "" {
		t.Errorf("Split (-want +got):\n%s", diff)
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	type outcome struct {
		Class  fault.Class
		Remedy bool
	}
	tests := map[string]outcome{
		"backendError": {fault.Transient, false}, "internalError": {fault.Transient, false}, "jobBackendError": {fault.Transient, false},
		"rateLimitExceeded": {fault.Transient, true}, "quotaExceeded": {fault.Transient, true}, "stopped": {fault.Transient, false},
		"timeout": {fault.Transient, false}, "invalidQuery": {fault.Permanent, true}, "invalid": {fault.Permanent, true},
		"accessDenied": {fault.Permanent, true}, "notFound": {fault.Permanent, true}, "bytesBilledLimitExceeded": {fault.Permanent, true},
		"resourcesExceeded": {fault.Permanent, false}, "": {fault.Permanent, false},
	}
	for reason, want := range tests {
		cause := errors.New("cause")
		err := fmt.Errorf("job: %w", fault.Reason(reason, cause))
		class, remedy := fault.Classify(err)
		if diff := cmp.Diff(want, outcome{class, remedy != ""}); diff != "" || !errors.Is(err, cause) {
			t.Errorf("Reason(%q) = %v (-want +got):\n%s", reason, err, diff)
		}
	}
}
