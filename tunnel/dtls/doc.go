// Package dtls is the encrypted link below a tunnel.
package dtls
