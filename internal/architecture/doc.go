// Package architecture holds no code, only the tests that keep the tree in the
// shape that docs/ARCHITECTURE.md describes: which package may import which,
// where each third-party module is confined, that the links of the documents
// lead somewhere, and that files stay short.
package architecture
