// Package wire sends one streaming request to an OpenAI-compatible server and
// says when every byte of the answer came.
//
// It speaks HTTP/1.1 on connections of its own, because what matters here is the
// moment at which the kernel handed over the bytes: a general client reads ahead
// in a second goroutine, and buffers, and loses it. TLS offers HTTP/1.1 only.
package wire
