"""Make ``python -m pointrend_deploy`` the same as ``pointrend-deploy``."""

from pointrend_deploy.cli import main

main()
