// Package workload writes at random into any Postgres schema, as its applications
// might: it reads tables, types, domains, enums, keys, foreign keys, partitions and
// defaults from the catalogue, then inserts and updates rows that satisfy them.
//
// It is made to find what a sync loses. Several tables change in one transaction;
// savepoints are rolled back, whole transactions too; some transactions stay open
// over many steps and commit after others that began later. One goroutine drives
// all of it, so that one seed on one database gives one history: who is open, who
// commits before whom.
//
// It deletes nothing and changes no key unless Options.Churn asks for it, and writes no value that DESIGN.md says is quarantined: no NaN,
// no infinity, no NULL inside an array. Types it has no generator for stay NULL or at their
// default; where neither is allowed New says so.
package workload
