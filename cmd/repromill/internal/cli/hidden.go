package cli

// hidden dispatches the entry points that the program uses on itself. They come
// before everything else because they run inside a sandbox, where neither a
// configuration nor a home folder can be read.
func hidden(args []string) (int, bool) {
	if len(args) < 2 {
		return 0, false
	}
	return 0, false
}
