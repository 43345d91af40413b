package kernel

func setAccelerated(v bool) { accelerated = v }
