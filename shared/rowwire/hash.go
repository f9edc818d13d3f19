package rowwire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
)

// hashLen is how many hex digits a hash has.
const hashLen = 2 * sha256.Size

// keyedHash computes HMAC-SHA256 (RFC 2104) of many values under one key, which it processes once.
type keyedHash struct {
	mac hash.Hash
	raw [sha256.Size]byte
	hex [hashLen]byte
}

func newKeyedHash(key []byte) *keyedHash { return &keyedHash{mac: hmac.New(sha256.New, key)} }

// sum is the hash of a value in lower-case hex, valid until the next call.
func (h *keyedHash) sum(v []byte) []byte {
	h.mac.Reset()
	h.mac.Write(v) // never fails
	hex.Encode(h.hex[:], h.mac.Sum(h.raw[:0]))
	return h.hex[:]
}
