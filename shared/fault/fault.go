// Package fault sorts errors: what retrying can mend, what only a person can,
// and what the remedy is. It is the one place that does, and it goes by code
// (SQLSTATE, gRPC, HTTP), never by the text of a message.
package fault

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"

	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Class says what a failed piece of work is worth trying again.
type Class int

// The classes of errors.
const (
	Transient Class = iota // the same work may succeed later: nack
	Permanent              // it cannot until somebody changes something: record and ack
)

func (c Class) String() string {
	if c == Permanent {
		return "permanent"
	}
	return "transient"
}

// Error is an error whose class and remedy its author knew.
type Error struct {
	Class  Class
	Remedy string // one sentence that says what to do
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error underneath.
func (e *Error) Unwrap() error { return e.Err }

// Fix marks err as permanent until the remedy is applied.
func Fix(err error, remedy string) error { return &Error{Permanent, remedy, err} }

// sqlState is what Postgres errors offer, whatever the driver.
type sqlState interface{ SQLState() string }

// Classify returns the class of an error and the remedy, if one is known.
// Unknown errors are transient: redelivery is bounded, losing work is not. Joined
// errors are permanent only if all of them are: one table that may recover is
// reason enough to try again.
func Classify(err error) (Class, string) {
	class, remedy := Permanent, ""
	for _, part := range Parts(err) {
		c, r := classify(part)
		if c == Transient {
			class = Transient
		}
		if remedy == "" {
			remedy = r
		}
	}
	return class, remedy
}

func classify(err error) (Class, string) {
	var known *Error
	if errors.As(err, &known) {
		return known.Class, known.Remedy
	}
	var pg sqlState
	if errors.As(err, &pg) {
		return classifySQLState(pg.SQLState())
	}
	var api *googleapi.Error
	if errors.As(err, &api) {
		return classifyHTTP(api)
	}
	if s, ok := grpcStatus(err); ok {
		return classifyGRPC(s.Code())
	}
	if remedy, ok := unreachable(err); ok {
		return Transient, remedy
	}
	return Transient, ""
}

// grpcStatus finds a gRPC status anywhere in the chain; errors without one
// would otherwise count as code Unknown.
func grpcStatus(err error) (*status.Status, bool) {
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) && carrier.GRPCStatus() != nil {
		return carrier.GRPCStatus(), true
	}
	return nil, false
}

func unreachable(err error) (string, bool) {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return "the host name does not resolve: check the host in DATABASE_URL or the emulator variables", true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at that address: check host and port, and that the server is up", true
	case errors.As(err, &op), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.DeadlineExceeded):
		return "the server did not answer: check that it is up and that the function can reach its network", true
	}
	return "", false
}

// classifySQLState goes by the codes of the PostgreSQL manual, appendix A.
func classifySQLState(code string) (Class, string) {
	switch code {
	case "28P01", "28000":
		return Permanent, "Postgres refused the login: check the user and password of DATABASE_URL, or that DB_USER is an IAM user of the instance with roles/cloudsql.instanceUser"
	case "3D000":
		return Permanent, "create the database, or correct DB_NAME or DATABASE_URL"
	case "42501":
		return Permanent, "grant the function's user the missing right"
	case "42P01":
		return Permanent, "create the table, or correct its name in the pipeline file"
	case "42703":
		return Permanent, "create the column, or correct its name in the pipeline file"
	case "25006":
		return Transient, "the server is read-only, as during a failover: the next delivery tries again"
	}
	if len(code) < 2 {
		return Transient, ""
	}
	switch code[:2] {
	case "08", "40", "53", "55", "57", "58", "XX": // connection, rollback, resources, locks, shutdown, system
		return Transient, ""
	case "22", "23", "42", "0A", "2F", "3F":
		return Permanent, ""
	}
	return Transient, ""
}

// classifyHTTP goes by the reason where there is one that is known: BigQuery
// answers 403 for quotas and 400 for failures of its own, and both end by
// themselves. (https://docs.cloud.google.com/bigquery/docs/error-messages)
func classifyHTTP(e *googleapi.Error) (Class, string) {
	for _, item := range e.Errors {
		if class, remedy, known := classifyReason(item.Reason); known {
			return class, remedy
		}
	}
	switch e.Code {
	case http.StatusUnauthorized:
		return Permanent, "the credentials were refused: check the function's service account"
	case http.StatusForbidden:
		return Transient, "wait for the quota, or raise it"
	case http.StatusNotFound:
		return Permanent, "create what is missing, or correct its name in the pipeline file"
	case http.StatusBadRequest:
		return Permanent, ""
	}
	return Transient, ""
}

func classifyReason(reason string) (class Class, remedy string, known bool) {
	switch reason {
	case "backendError", "internalError", "jobBackendError", "jobInternalError", "stopped", "tableUnavailable", "timeout":
		return Transient, "", true
	case "jobRateLimitExceeded", "quotaExceeded", "rateLimitExceeded":
		return Transient, "wait for the quota, or raise it", true
	case "accessDenied":
		return Permanent, "grant the function's service account access to the dataset", true
	case "accessNotConfigured", "forbidden", "insufficientPermissions", "notAuthorized": // Google's other APIs
		return Permanent, "enable the API, and grant the function's service account what the error names", true
	case "bytesBilledLimitExceeded":
		return Permanent, "raise the limit of bytes, or narrow what is read", true
	case "invalidQuery", "invalid":
		return Permanent, "correct the query", true
	case "notFound":
		return Permanent, "create what is missing, or correct its name in the pipeline file", true
	}
	return Permanent, "", false
}

func classifyGRPC(code codes.Code) (Class, string) {
	switch code {
	case codes.InvalidArgument, codes.Unimplemented, codes.FailedPrecondition:
		return Permanent, ""
	case codes.PermissionDenied, codes.Unauthenticated:
		return Permanent, "grant the function's service account access to BigQuery"
	case codes.NotFound:
		return Permanent, "create what is missing, or correct its name in the pipeline file"
	default:
		return Transient, ""
	}
}

// Reason marks an error that BigQuery answered for a job with the class and the
// remedy of its reason; one that is not known is permanent.
func Reason(reason string, err error) error {
	class, remedy, _ := classifyReason(reason)
	return &Error{class, remedy, err}
}

// SQLState returns the code of a Postgres error, or "".
func SQLState(err error) string {
	var pg sqlState
	if errors.As(err, &pg) {
		return pg.SQLState()
	}
	return ""
}

// HTTPStatus returns the status code of a Google API error, or 0.
func HTTPStatus(err error) int {
	var api *googleapi.Error
	if errors.As(err, &api) {
		return api.Code
	}
	return 0
}

// GRPCCode returns the gRPC code of an error, or codes.OK if it carries none.
func GRPCCode(err error) codes.Code {
	if s, ok := grpcStatus(err); ok {
		return s.Code()
	}
	return codes.OK
}
