// Command registry serves a plain container registry on loopback for the
// end-to-end tests: blobs in a folder, manifests in memory.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: registry ADDRESS FOLDER")
	}
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	quiet := log.New(os.Stderr, "", log.LstdFlags)
	h := registry.New(registry.Logger(quiet), registry.WithBlobHandler(registry.NewDiskBlobHandler(os.Args[2])))
	fmt.Println("serving on", l.Addr())
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(srv.Serve(l))
}
