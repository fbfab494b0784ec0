CONTENT_SECURITY_POLICY = "default-src 'none'"
def render(document): return "<!doctype html><title>Jobyard</title>"
