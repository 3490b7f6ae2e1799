"""``python -m pointrend_deploy`` is ``pointrend-deploy``."""

from pointrend_deploy.cli import main

main()
