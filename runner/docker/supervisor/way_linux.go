package supervisor

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
)

// The command finds its proxy on the loopback address of its own network
// namespace, which has no other interface.
const (
	proxyAddr = "127.0.0.1:3128"
	proxyURL  = "http://" + proxyAddr
	maxConns  = 256
)

// openWay carries connections from the loopback address to the proxy's socket,
// and ends the command when the proxy is gone.
func (v *supervisor) openWay() error {
	leash, err := net.Dial("unix", filepath.Join(NetDir, LeashSocket))
	if err != nil {
		return fmt.Errorf("reach the proxy outside: %w", err)
	}
	l, err := net.Listen("tcp4", proxyAddr)
	if err != nil {
		return fmt.Errorf("listen for proxy: %w", err)
	}
	go func() {
		io.Copy(io.Discard, leash) // it says nothing; it ends with the proxy
		v.end(LostProxy)
	}()
	go func() {
		slots := make(chan struct{}, maxConns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				carry(c)
			}()
		}
	}()
	return nil
}

func carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("unix", filepath.Join(NetDir, ProxySocket))
	if err != nil {
		return
	}
	defer out.Close()
	var both sync.WaitGroup
	for _, p := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			io.Copy(p[0], p[1])
			if w, ok := p[0].(interface{ CloseWrite() error }); ok {
				w.CloseWrite()
			}
		})
	}
	both.Wait()
}
