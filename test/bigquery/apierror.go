package bigquery

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	bq "google.golang.org/api/bigquery/v2"
	"google.golang.org/api/googleapi"
)

// apiError is an error as the REST API answers it. The reasons and codes are
// those of https://cloud.google.com/bigquery/docs/error-messages.
type apiError struct {
	code    int
	reason  string
	message string
}

func (e *apiError) Error() string { return e.message }

func (e *apiError) proto() *bq.ErrorProto {
	return &bq.ErrorProto{Reason: e.reason, Message: e.message}
}

func errInvalid(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, "invalid", fmt.Sprintf(format, args...)}
}

func errInvalidQuery(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, "invalidQuery", fmt.Sprintf(format, args...)}
}

func errNotFound(format string, args ...any) *apiError {
	return &apiError{http.StatusNotFound, "notFound", "Not found: " + fmt.Sprintf(format, args...)}
}

func errDuplicate(format string, args ...any) *apiError {
	return &apiError{http.StatusConflict, "duplicate", "Already Exists: " + fmt.Sprintf(format, args...)}
}

func errRateLimit(format string, args ...any) *apiError {
	return &apiError{http.StatusForbidden, "rateLimitExceeded", fmt.Sprintf(format, args...)}
}

// errUnsupported refuses what BigQuery can do and the emulator cannot.
func errUnsupported(format string, args ...any) *apiError {
	return &apiError{
		http.StatusNotImplemented, "notImplemented",
		"the BigQuery emulator does not support " + fmt.Sprintf(format, args...),
	}
}

// asAPIError finds the REST form of any error. An error of no known form is
// an internal one, so that no client takes a fault of the emulator for
// BigQuery's opinion of its request.
func asAPIError(err error) *apiError {
	var own *apiError
	if errors.As(err, &own) {
		return own
	}
	var google *googleapi.Error
	if errors.As(err, &google) {
		e := &apiError{google.Code, "", google.Message}
		if len(google.Errors) > 0 {
			e.reason = google.Errors[0].Reason
		}
		return e
	}
	return &apiError{http.StatusInternalServerError, "internalError", err.Error()}
}

// reasonCode is the HTTP code that goes with the reason of a job's error.
func reasonCode(reason string) int {
	switch reason {
	case "notFound":
		return http.StatusNotFound
	case "duplicate":
		return http.StatusConflict
	case "accessDenied", "rateLimitExceeded", "quotaExceeded", "responseTooLarge":
		return http.StatusForbidden
	case "notImplemented":
		return http.StatusNotImplemented
	case "internalError":
		return http.StatusInternalServerError
	case "backendError":
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// canonicalStatus is the google.rpc.Code name that REST answers beside the code.
func canonicalStatus(code int) string {
	switch code {
	case http.StatusNotFound:
		return "NOT_FOUND"
	case http.StatusConflict:
		return "ALREADY_EXISTS"
	case http.StatusForbidden:
		return "PERMISSION_DENIED"
	case http.StatusPreconditionFailed:
		return "FAILED_PRECONDITION"
	case http.StatusNotImplemented:
		return "UNIMPLEMENTED"
	case http.StatusInternalServerError:
		return "INTERNAL"
	case http.StatusServiceUnavailable:
		return "UNAVAILABLE"
	}
	return "INVALID_ARGUMENT"
}

func writeAPIError(w http.ResponseWriter, err error) {
	e := asAPIError(err)
	type item struct {
		Message string `json:"message"`
		Domain  string `json:"domain"`
		Reason  string `json:"reason"`
	}
	body := struct {
		Error struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
			Errors  []item `json:"errors"`
			Status  string `json:"status"`
		} `json:"error"`
	}{}
	body.Error.Code = e.code
	body.Error.Message = e.message
	body.Error.Errors = []item{{e.message, "global", e.reason}}
	body.Error.Status = canonicalStatus(e.code)
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(e.code)
	// A client that went away cannot be told; there is nobody left to report to.
	_ = json.NewEncoder(w).Encode(body)
}
